//! The ladder of modes: zero-copy, copy, skb, packet. Fastest first, each step down said with its reason.
//!
//! A step is taken in three moves. [`Rung::prepare`] opens sockets, binds them and fills the XSKMAP slots;
//! the caller starts workers on the sources; [`Intake::open`] attaches the program, so that nothing is
//! counted before somebody reads. On the way out [`Intake::close`] comes first. It must never take a
//! step down that was not asked for (`--mode`), nor take one in silence.
//!
//! A program that a killed recorder left on the interface goes on counting for the new one, if it fits
//! ([`Estate`]): then nothing is attached, and packets come in from the moment a slot is filled.

use crate::packet_mmap::{PacketError, PacketIntake, PacketSource};
use crate::pins::estate::Estate;
use crate::xsk::{BindMode, ChunkSize, Gauge, Pages, XskConfig, XskError, XskSocket, takes_pieces};
use std::fmt;
use std::os::fd::{AsFd as _, OwnedFd};
use tapedeck_ebpf::{Mode as AttachMode, Program, ProgramError, QUEUES_MAX};

/// Largest receive ring of a card that the chunks of a queue fill, beside its RX ring: so many that a full RX ring never
/// starves the card's own.
pub(crate) const CARD_RING_MAX: u32 = 8_192;

/// Entries of an RX ring whose packets take no more memory than so many bytes; a power of two.
fn rx_entries(chunk: ChunkSize, packet_bytes: u64) -> u32 {
    let most = u32::try_from(packet_bytes / u64::from(chunk.bytes())).unwrap_or(u32::MAX);
    1 << most.max(1).ilog2()
}

/// Memory that packets of a queue arrive in, bytes, at this MTU, if so much was wished for.
#[must_use]
pub fn packet_memory_bytes(mode: Mode, mtu: u32, packet_bytes: u64) -> u64 {
    let (chunk, _) = ChunkSize::for_mtu(mtu);
    match mode {
        Mode::Packet => crate::packet_mmap::ring_bytes(packet_bytes),
        _ => u64::from(rx_entries(chunk, packet_bytes) + CARD_RING_MAX) * u64::from(chunk.bytes()),
    }
}

/// How packets come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// AF_XDP, the NIC writes into our memory.
    ZeroCopy,
    /// AF_XDP, native program, the kernel copies.
    Copy,
    /// AF_XDP, generic program.
    Skb,
    /// AF_PACKET.
    Packet,
}

impl Mode {
    /// The ladder, from the top.
    pub const ALL: [Self; 4] = [Self::ZeroCopy, Self::Copy, Self::Skb, Self::Packet];

    /// Its name in options, ready line and ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ZeroCopy => "zerocopy",
            Self::Copy => "copy",
            Self::Skb => "skb",
            Self::Packet => "packet",
        }
    }

    /// The mode of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The interface to open.
#[derive(Clone, Copy, Debug)]
pub struct Rung {
    /// Interface.
    pub ifindex: u32,
    /// Largest payload of a packet, bytes.
    pub mtu: u32,
    /// Queues packets arrive on.
    pub queues: u32,
    /// UTC minus CLOCK_MONOTONIC, nanoseconds.
    pub utc_offset_ns: u64,
    /// The program asks the card for stamps.
    pub asks_card: bool,
    /// Memory in which packets of a queue wait for their worker, bytes.
    pub packet_bytes: u64,
}

/// Why a mode cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RungError {
    /// The XDP program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// An AF_XDP socket.
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// The packet socket.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// More queues than the program has slots for.
    #[error("the interface has {0} queues, the XDP program takes {QUEUES_MAX}")]
    Queues(u32),
    /// A descriptor could not be copied.
    #[error("out of descriptors")]
    Descriptors(#[source] std::io::Error),
}

impl RungError {
    /// What the operator can do about it, where we know.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        let errno = match self {
            Self::Program(err) => return err.hint(),
            Self::Queues(_) => return Some("use fewer queues: `ethtool -L IF combined 64`, or --rss"),
            Self::Xsk(err) => err.source.raw_os_error(),
            Self::Packet(err) => err.source.raw_os_error(),
            Self::Descriptors(err) => err.raw_os_error(),
        };
        match errno? {
            libc::EOPNOTSUPP => Some("the driver has no AF_XDP zero-copy: use --mode copy, or auto"),
            libc::EBUSY => Some("another AF_XDP socket holds the queue: see `ss -f xdp -p`"),
            libc::EPERM | libc::EACCES => {
                Some("run as root, or with CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON")
            }
            libc::ENOBUFS => Some("raise the limit of locked memory: `ulimit -l unlimited`"),
            libc::EMFILE => Some("raise the limit of open files: `ulimit -n 4096`"),
            _ => None,
        }
    }
}

/// What the workers read, one source per queue.
#[derive(Debug)]
pub enum Sources {
    /// AF_XDP: one per queue of the interface.
    Xsk(Vec<XskSocket>),
    /// AF_PACKET: one for all of them.
    Packet(PacketSource),
}

/// Sources that are ready, behind a closed intake.
#[derive(Debug)]
pub struct Prepared {
    /// For the workers.
    pub sources: Sources,
    /// For the supervisor.
    pub intake: Intake,
    /// Fill levels of the RX rings, in order of the queues; empty in packet mode.
    pub gauges: Vec<Gauge>,
    /// Pages the UMEMs consist of; `None` in packet mode.
    pub pages: Option<Pages>,
}

/// Where the packets of an interface come in.
#[derive(Debug)]
pub enum Intake {
    /// Through the XDP program.
    Xdp {
        /// The program, which holds the counters.
        program: Box<Program>,
        /// Interface.
        ifindex: u32,
        /// How to attach; `None` once it is attached.
        attach: Option<AttachMode>,
        /// Sockets that could be bound only with the program attached; their slots are empty yet.
        late: Vec<OwnedFd>,
    },
    /// Through the packet socket.
    Packet(PacketIntake),
}

impl Rung {
    /// Sets everything up for `mode`, up to the point where packets would come in. A pinned program that
    /// does not fit is taken off; one that does stays as it is, also after an error.
    ///
    /// # Errors
    /// [`RungError`]: the mode cannot be had on this interface.
    pub(crate) fn prepare(&self, mode: Mode, estate: &mut Estate) -> Result<Prepared, RungError> {
        let (bind, attach) = match mode {
            Mode::ZeroCopy => (BindMode::ZeroCopy, AttachMode::Native),
            Mode::Copy => (BindMode::Copy, AttachMode::Native),
            Mode::Skb => (BindMode::Copy, AttachMode::Skb),
            Mode::Packet => {
                estate.take_off();
                return self.prepare_packet();
            }
        };
        if self.queues > QUEUES_MAX {
            return Err(RungError::Queues(self.queues));
        }
        let pieces = takes_pieces();
        let mut program = match estate.take(self.ifindex, attach, choice(self.asks_card)) {
            Some(program) => program,
            None if self.asks_card => Program::load_asking_card(self.utc_offset_ns, self.ifindex)?,
            None if pieces => Program::load(self.utc_offset_ns)?,
            None => Program::load_for_one_piece(self.utc_offset_ns)?,
        };
        match self.bind_to(&mut program, bind, attach, pieces, estate.has_dead()) {
            Ok((sockets, late)) => Ok(Prepared {
                gauges: sockets.iter().map(XskSocket::gauge).collect(),
                pages: sockets.first().map(XskSocket::pages),
                intake: Intake::Xdp {
                    attach: (!program.is_attached()).then_some(attach),
                    program: Box::new(program),
                    ifindex: self.ifindex,
                    late,
                },
                sources: Sources::Xsk(sockets),
            }),
            Err(error) => {
                if estate.has_taken() {
                    program.leave();
                }
                Err(error)
            }
        }
    }

    /// The sockets of all queues, bound; and those of them whose slots must stay empty until packets may
    /// come, because the program is attached already: a former recorder's, or because the driver wants it, or because
    /// `is_heir`: books of the dead are to be closed, and whether the driver takes the program must be known before.
    fn bind_to(
        &self,
        program: &mut Program,
        bind: BindMode,
        attach: AttachMode,
        pieces: bool,
        is_heir: bool,
    ) -> Result<(Vec<XskSocket>, Vec<OwnedFd>), RungError> {
        let sockets = (0..self.queues).map(|queue| self.socket(queue, pieces));
        let mut sockets = sockets.collect::<Result<Vec<_>, _>>()?;
        if program.is_attached() {
            program.set_utc_offset(self.utc_offset_ns)?;
        }
        if let Err(refused) = bind_all(&mut sockets, bind) {
            // virtio-net announces zero-copy only once a program is attached.
            let is_unknown = refused.source.raw_os_error() == Some(libc::EOPNOTSUPP);
            if bind != BindMode::ZeroCopy || !is_unknown || program.is_attached() {
                return Err(refused.into());
            }
            program.attach(self.ifindex, attach)?;
            bind_all(&mut sockets, bind)?;
        }
        if is_heir && !program.is_attached() {
            program.attach(self.ifindex, attach)?;
        }
        if !program.is_attached() {
            for (queue, socket) in (0..).zip(&sockets) {
                program.set_socket(queue, socket.as_fd())?;
            }
            return Ok((sockets, Vec::new()));
        }
        let copy = |socket: &XskSocket| socket.as_fd().try_clone_to_owned();
        let late = sockets.iter().map(copy).collect::<Result<_, _>>().map_err(RungError::Descriptors)?;
        Ok((sockets, late))
    }

    fn prepare_packet(&self) -> Result<Prepared, RungError> {
        let source = PacketSource::open(self.ifindex, self.packet_bytes)?;
        let intake = Intake::Packet(PacketIntake::of(&source, self.ifindex)?);
        Ok(Prepared { sources: Sources::Packet(source), intake, gauges: Vec::new(), pages: None })
    }

    fn socket(&self, queue: u32, pieces: bool) -> Result<XskSocket, XskError> {
        let (chunk, fragments) = ChunkSize::for_mtu(self.mtu);
        if fragments && !pieces && queue == 0 {
            tracing::warn!(
                mtu = self.mtu,
                "AF_XDP of this kernel takes no packet in several pieces (Linux 6.6 does): packets that do not \
                 fit one page count as oversize; --mode packet takes them whole"
            );
        }
        let fragments = fragments && pieces;
        let ifindex = self.ifindex;
        let rx_entries = rx_entries(chunk, self.packet_bytes);
        XskSocket::open(XskConfig {
            ifindex,
            queue,
            chunk,
            fragments,
            rx_entries,
            chunks: rx_entries + CARD_RING_MAX,
        })
    }
}

fn bind_all(sockets: &mut [XskSocket], mode: BindMode) -> Result<(), XskError> {
    sockets.iter_mut().try_for_each(|socket| if socket.is_bound() { Ok(()) } else { socket.bind(mode) })
}

impl Intake {
    /// Lets packets in. Everything is counted from here on.
    ///
    /// # Errors
    /// [`RungError`]: the driver refuses the program, or the interface went away.
    pub fn open(&mut self) -> Result<(), RungError> {
        match self {
            Self::Xdp { program, ifindex, attach, late } => {
                for (queue, socket) in (0..).zip(late.drain(..)) {
                    program.set_socket(queue, socket.as_fd())?;
                }
                if let Some(mode) = attach.take() {
                    program.attach(*ifindex, mode)?;
                }
            }
            Self::Packet(intake) => intake.open()?,
        }
        Ok(())
    }

    /// Lets nothing more in. What has arrived stays in the rings, and the counters stay readable.
    ///
    /// # Errors
    /// [`RungError`]: the packet socket did not take the filter, or the program's pinned link did not let go.
    pub fn close(&mut self) -> Result<(), RungError> {
        match self {
            Self::Xdp { program, .. } => program.detach()?,
            Self::Packet(intake) => intake.close()?,
        }
        Ok(())
    }

    /// The XDP program, in the modes that have one.
    #[must_use]
    pub fn program(&self) -> Option<&Program> {
        match self {
            Self::Xdp { program, .. } => Some(program),
            Self::Packet(_) => None,
        }
    }

    /// The same, to change it.
    pub(crate) fn program_mut(&mut self) -> Option<&mut Program> {
        match self {
            Self::Xdp { program, .. } => Some(program),
            Self::Packet(_) => None,
        }
    }

    /// Leaves the program on the interface, if it is pinned, when this is dropped.
    pub(crate) fn leave(&mut self) {
        if let Some(program) = self.program_mut() {
            program.leave();
        }
    }
}

/// A program that asks the card can be had in this mode: it is bound to its interface's driver. Kernels that take no
/// packet in several pieces are older than those that know such programs, or little younger.
pub(crate) fn can_ask_card(mode: Mode) -> bool {
    matches!(mode, Mode::ZeroCopy | Mode::Copy) && takes_pieces()
}

/// What is chosen when the program is loaded; one that was loaded otherwise is not taken over.
pub(crate) fn choice(asks_card: bool) -> &'static str {
    match (asks_card, takes_pieces()) {
        (true, _) => CARD_CHOICE,
        (false, true) => "",
        (false, false) => "one-piece",
    }
}

/// [`choice`] of a program that asks the card.
pub(crate) const CARD_CHOICE: &str = "card";
