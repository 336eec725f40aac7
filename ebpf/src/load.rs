//! Loading: the one object or the other, and what is decided before it.
//!
//! It must never attach anything to an interface.

use crate::filter::FilterMaps;
use crate::{CardCounts, CardMaps, Program, ProgramError};
use libbpf_rs::skel::{OpenSkel as _, Skel as _, SkelBuilder as _};
use libbpf_rs::{MapCore as _, MapHandle, Object, PrintLevel};
use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::sync::atomic::AtomicU32;

skeleton!(plain, "tapedeck.skel.rs");
skeleton!(card, "tapedeck_card.skel.rs");

/// `BPF_F_XDP_DEV_BOUND_ONLY` (linux/bpf.h): the program runs on one interface only, and may ask its driver.
const DEV_BOUND_ONLY: u32 = 1 << 6;

/// What is decided before the load.
#[derive(Clone, Copy, Debug, Default)]
struct Choice {
    in_front_only: bool,
    one_piece_only: bool,
    /// Interface whose card is asked for stamps.
    card_of: Option<u32>,
    card_in_packet: bool,
}

impl Program {
    /// Loads the programs and creates their maps. `utc_offset_ns` is UTC minus CLOCK_MONOTONIC; it
    /// decides which second a packet is counted in.
    ///
    /// # Errors
    /// [`ProgramError::Load`] and [`ProgramError::Map`]. A kernel without the error tracepoint is not
    /// an error: see [`Program::without_refusals`].
    pub fn load(utc_offset_ns: u64) -> Result<Self, ProgramError> {
        choosing(utc_offset_ns, Choice::default())
    }

    /// As [`Program::load`], for a kernel whose AF_XDP takes no packet in several pieces: such packets count
    /// as [`crate::Refusal::Oversize`] and are passed on.
    ///
    /// # Errors
    /// As [`Program::load`].
    pub fn load_for_one_piece(utc_offset_ns: u64) -> Result<Self, ProgramError> {
        choosing(utc_offset_ns, Choice { one_piece_only: true, ..Choice::default() })
    }

    /// As [`Program::load`], bound to interface `ifindex`, in whose driver alone it runs: it asks the card when it saw
    /// a packet, once [`Program::set_card`] has said how the card's clock runs.
    ///
    /// # Errors
    /// As [`Program::load`]; also where the kernel (before Linux 6.3) or the driver knows no such programs.
    pub fn load_asking_card(utc_offset_ns: u64, ifindex: u32) -> Result<Self, ProgramError> {
        choosing(utc_offset_ns, Choice { card_of: Some(ifindex), ..Choice::default() })
    }

    /// As [`Program::load_asking_card`], with the card's stamp in the packet: eight bytes of the machine's order behind
    /// the link header. For tests on drivers whose cards have no clock.
    ///
    /// # Errors
    /// As [`Program::load_asking_card`].
    #[doc(hidden)]
    pub fn load_card_in_packet(utc_offset_ns: u64, ifindex: u32) -> Result<Self, ProgramError> {
        choosing(utc_offset_ns, Choice { card_of: Some(ifindex), card_in_packet: true, ..Choice::default() })
    }

    /// As [`Program::load`], as if the driver had no metadata area: the metadata goes in front of the
    /// packet ([`crate::FLAG_HEAD`]). For tests on drivers that have one.
    ///
    /// # Errors
    /// As [`Program::load`].
    #[doc(hidden)]
    pub fn load_in_front(utc_offset_ns: u64) -> Result<Self, ProgramError> {
        choosing(utc_offset_ns, Choice { in_front_only: true, ..Choice::default() })
    }
}

fn choosing(utc_offset_ns: u64, choice: Choice) -> Result<Program, ProgramError> {
    libbpf_rs::set_print(Some((PrintLevel::Info, print)));
    match load(utc_offset_ns, choice, true) {
        Ok(program) => Ok(program),
        Err(ProgramError::Load { source, .. }) => {
            // The tracing program needs the kernel's BTF; the XDP program does not.
            let mut program = load(utc_offset_ns, choice, false)?;
            program.refusals = Err(format!("{source:#}"));
            Ok(program)
        }
        Err(other) => Err(other),
    }
}

fn load(utc_offset_ns: u64, choice: Choice, with_refusals: bool) -> Result<Program, ProgramError> {
    LOG.take();
    let mut storage = MaybeUninit::uninit();
    let Some(ifindex) = choice.card_of else {
        let mut open = plain::TapedeckSkelBuilder::default().open(&mut storage).map_err(refused)?;
        open.progs.tapedeck_redirect_err.set_autoload(with_refusals);
        if let Some(chosen) = open.maps.rodata_data.as_deref_mut() {
            chosen.in_front_only = u32::from(choice.in_front_only);
            chosen.one_piece_only = u32::from(choice.one_piece_only);
        }
        return of(open.load().map_err(refused)?.object_mut(), utc_offset_ns, with_refusals);
    };
    let mut storage = MaybeUninit::uninit();
    let mut open = card::TapedeckCardSkelBuilder::default().open(&mut storage).map_err(refused)?;
    open.progs.tapedeck_redirect_err.set_autoload(with_refusals);
    open.progs.tapedeck_rx.set_ifindex(ifindex);
    // libbpf adds that it takes packets in pieces, by the name of its section.
    open.progs.tapedeck_rx.set_flags(DEV_BOUND_ONLY);
    if let Some(chosen) = open.maps.rodata_data.as_deref_mut() {
        chosen.card_in_packet = u32::from(choice.card_in_packet);
    }
    of(open.load().map_err(refused)?.object_mut(), utc_offset_ns, with_refusals)
}

/// What a loaded object holds.
fn of(object: &mut Object, utc_offset_ns: u64, with_refusals: bool) -> Result<Program, ProgramError> {
    let missing = || refused(libbpf_rs::Error::from(io::Error::from(io::ErrorKind::NotFound)));
    let map = |name: &str| {
        let found = object.maps().find(|map| map.name() == OsStr::new(name)).ok_or_else(missing)?;
        MapHandle::try_from(&found).map_err(refused)
    };
    let xsks = map("xsks")?;
    let xsks_id = xsks.info().map_err(refused)?.info.id;
    let program = object.progs().find(|program| program.name() == OsStr::new("tapedeck_rx"));
    let program = program.ok_or_else(missing)?.as_fd().try_clone_to_owned();
    let mut loaded = Program {
        program: program.map_err(|err| refused(err.into()))?,
        xsks,
        queues: map("queues")?,
        control: map("control")?,
        filter: FilterMaps::named(map)?,
        // Only a program that asks the card has them.
        card: CardMaps::named(map).ok(),
        card_in_use: AtomicU32::new(0),
        all_maps: named_maps(object)?,
        xsks_id,
        refusals: Err("not loaded".to_owned()),
        attached: None,
        link_pin: None,
        base: Vec::new(),
        card_base: CardCounts::default(),
    };
    loaded.set_utc_offset(utc_offset_ns)?;
    if with_refusals {
        let errors = object.progs_mut().find(|program| program.name() == OsStr::new("tapedeck_redirect_err"));
        loaded.refusals = Ok(errors.ok_or_else(missing)?.attach_trace().map_err(refused)?);
    }
    Ok(loaded)
}

/// Handles to the maps that can be pinned: those the loader makes for itself have a dot in their names.
fn named_maps(object: &Object) -> Result<Vec<MapHandle>, ProgramError> {
    let named = object.maps().filter(|map| !map.name().to_string_lossy().contains('.'));
    named.map(|map| MapHandle::try_from(&map).map_err(refused)).collect()
}

thread_local! {
    /// What libbpf said since the last load began on this thread.
    static LOG: RefCell<String> = const { RefCell::new(String::new()) };
}

/// libbpf's own messages: the verifier's log and the like.
fn print(level: PrintLevel, text: String) {
    tracing::debug!(target: "libbpf", ?level, "{}", text.trim_end());
    LOG.with_borrow_mut(|log| log.push_str(&text));
}

fn refused(source: libbpf_rs::Error) -> ProgramError {
    ProgramError::Load { source, log: LOG.take() }
}
