//! Asks the packs of a store which segments can hold a match, before any sidecar is opened.
//!
//! What a pack excludes, its sidecar would exclude, too: the keys asked for are those without which no row of a
//! segment can match. Only a segment that is still as long as the pack knew it is
//! excluded; every other one is asked itself, and so are all where the pack does not hold.

use crate::filter::{Atom, Expr, Prefix};
use crate::plan::PackTrouble;
use crate::pool::ordered;
use crate::prune::rank;
use crate::range::{Span, TimeRange};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstatat};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tapedeck_index::catalog::Found;
use tapedeck_index::name::{FileKind, SegmentName};
use tapedeck_index::pack::{self, Key, KeyKind, MemberSet, PACK_VERSION, Pack, PackError};
use tapedeck_packet::{CommunityId, FlowKey};

#[cfg(test)]
mod tests;

/// Threads that read packs and sidecars: they wait for a disk, not for a processor.
pub(crate) const READERS: usize = 8;
/// Networks or ports of a term that are asked for one by one; a wider term excludes nothing.
const KEYS_MAX: u32 = 16;

/// Segments that are asked as fast as one pack: each costs a few reads.
const SEGMENTS_A_PACK: usize = 2;

/// What a pack says of a segment.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// Times of its packets.
    pub(crate) span: Span,
    /// Frames with packets.
    pub(crate) frames: u64,
    /// Bytes of the segment.
    pub(crate) segment_len: u64,
    sidecar_len: u64,
    /// Of the sidecar.
    pub(crate) fingerprint: u64,
    /// No packet of it can match.
    pub(crate) excluded: bool,
    /// Another pack was made from other files of this name: none of both excludes it.
    disputed: bool,
    /// Number of the pack.
    pub(crate) pack: usize,
}

impl Told {
    /// Whether both were made from the same files.
    fn agrees(&self, other: &Self) -> bool {
        let of = |told: &Self| (told.segment_len, told.sidecar_len, told.fingerprint);
        of(self) == of(other)
    }

    /// What two packs say: either one's no counts, if they speak of the same files.
    fn join(&mut self, other: Self) {
        if !self.agrees(&other) {
            (self.disputed, self.excluded) = (true, false);
        } else if !self.excluded && !self.disputed {
            *self = other;
        }
    }
}

/// The folder that was looked into last: of its files the way need not be gone again.
#[derive(Debug, Default)]
pub(crate) struct Folder(Option<(PathBuf, OwnedFd)>);

impl Folder {
    /// Bytes of the file of a sealed segment; `None` where it is not there.
    fn segment_len(&mut self, found: &Found) -> Option<u64> {
        if self.0.as_ref().is_none_or(|(path, _)| *path != found.folder) {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let folder = nix::fcntl::open(&found.folder, flags, Mode::empty()).ok()?;
            self.0 = Some((found.folder.clone(), folder));
        }
        let (_, folder) = self.0.as_ref()?;
        let stat = fstatat(folder, found.name.file(FileKind::Sealed).as_str(), AtFlags::empty()).ok()?;
        u64::try_from(stat.st_size).ok()
    }
}

/// The packs of all stores, asked.
#[derive(Debug, Default)]
pub(crate) struct Packs {
    /// By store.
    told: Vec<(PathBuf, HashMap<SegmentName, Told>)>,
    /// By number.
    paths: Vec<PathBuf>,
    /// Packs that were asked and hold.
    pub(crate) asked: usize,
    /// Packs that are not believed, and why.
    pub(crate) troubles: Vec<PackTrouble>,
}

impl Packs {
    /// Asks the packs of `stores` that have segments inside `range`, of which `segments` are wanted. No pack is read for
    /// an expression that none can answer, nor where the segments are asked as fast themselves.
    pub(crate) fn ask(stores: &[PathBuf], expr: &Expr, range: &TimeRange, segments: usize) -> Self {
        let mut this = Self::default();
        if !has_keys(expr) {
            return this;
        }
        let found: Vec<_> = stores.iter().map(|store| (store, list(store, range))).collect();
        let packs: usize = found.iter().map(|(_, packs)| packs.len()).sum();
        if segments < packs.saturating_mul(SEGMENTS_A_PACK) {
            return this;
        }
        for (store, found) in found {
            let mut told = HashMap::new();
            std::thread::scope(|scope| {
                let answers = ordered(scope, READERS, &found, || (), |(), path: &PathBuf| ask(path, expr));
                for (path, answer) in found.iter().zip(answers) {
                    match answer {
                        Ok(members) => this.take(path, members, &mut told),
                        // Replaced by a larger one since it was listed: its segments are asked themselves.
                        Err(PackError::Io(error)) if error.kind() == ErrorKind::NotFound => {}
                        Err(error) => {
                            let mends =
                                !matches!(error, PackError::Version { found } if found > PACK_VERSION);
                            let (path, why) = (path.clone(), error.to_string());
                            this.troubles.push(PackTrouble { path, why, mends });
                        }
                    }
                }
            });
            this.told.push((store.clone(), told));
        }
        this
    }

    fn take(
        &mut self,
        path: &Path,
        members: Vec<(SegmentName, Told)>,
        told: &mut HashMap<SegmentName, Told>,
    ) {
        self.asked += 1;
        let pack = self.paths.len();
        self.paths.push(path.to_owned());
        for (name, member) in members {
            let member = Told { pack, ..member };
            match told.entry(name) {
                Entry::Vacant(entry) => drop(entry.insert(member)),
                Entry::Occupied(mut entry) => entry.get_mut().join(member),
            }
        }
    }

    /// What a pack says of a segment, if that still looks as the pack knew it.
    pub(crate) fn of(&self, found: &Found, folder: &mut Folder) -> Option<&Told> {
        let in_store = self.told.iter().filter(|(store, _)| found.folder.starts_with(store));
        let told = in_store.filter_map(|(_, told)| told.get(&found.name)).next()?;
        // Done for every segment of a store, and cold it is most of what a question costs: one look at the packets.
        // Which sidecar the pack was made from only counts where it is read, and is seen there.
        (folder.segment_len(found) == Some(told.segment_len)).then_some(told)
    }

    /// A pack turned out to be made from another sidecar than the one that is there: nothing of it counts.
    pub(crate) fn distrust(&mut self, pack: usize, segment: &SegmentName) {
        let Some(path) = self.paths.get(pack) else { return };
        if self.troubles.iter().any(|trouble| trouble.path == *path) {
            return;
        }
        let why = format!("it was made from another index of {segment}");
        self.troubles.push(PackTrouble { path: path.clone(), why, mends: true });
        self.asked -= 1;
        for (_, told) in &mut self.told {
            told.retain(|_, told| told.pack != pack);
        }
    }
}

/// The packs of a store with packets inside the range; none where they cannot be listed: segments are asked themselves.
fn list(store: &Path, range: &TimeRange) -> Vec<PathBuf> {
    let found = pack::list(store).unwrap_or_default().into_iter();
    found.filter(|(_, name)| range.overlaps(name.from, name.last)).map(|(path, _)| path).collect()
}

/// What one pack says of each of its segments.
fn ask(path: &Path, expr: &Expr) -> Result<Vec<(SegmentName, Told)>, PackError> {
    let pack = Pack::open(path)?;
    let candidates = candidates(&pack, expr)?;
    let told = pack.members().iter().enumerate().map(|(number, member)| {
        let told = Told {
            span: Span::of_packets(member.t_min, member.t_max),
            frames: u64::from(member.frames),
            segment_len: member.segment_len,
            sidecar_len: member.sidecar_len,
            fingerprint: member.fingerprint,
            excluded: candidates.as_ref().is_some_and(|set| !set.contains(number)),
            disputed: false,
            pack: 0,
        };
        (member.name.clone(), told)
    });
    Ok(told.collect())
}

/// The members that can hold a match of `expr`; `None` = any of them. A part of an `and` that cannot be asked for
/// excludes nothing, nor does an `or` with such a part; `inner` looks at rows of all layers, as keys do.
fn candidates(pack: &Pack, expr: &Expr) -> Result<Option<MemberSet>, PackError> {
    match expr {
        Expr::Atom(atom) => {
            let mut set = None;
            for any in keys(atom) {
                narrow(&mut set, || union(pack, &any).map(Some))?;
            }
            Ok(set)
        }
        Expr::And(all) => {
            let mut parts: Vec<&Expr> = all.iter().collect();
            parts.sort_by_key(|part| rank(part).unwrap_or(u8::MAX));
            let mut set = None;
            for part in parts {
                narrow(&mut set, || candidates(pack, part))?;
            }
            Ok(set)
        }
        Expr::Or(any) => {
            let mut set = MemberSet::none(pack.members().len());
            for part in any {
                let Some(more) = candidates(pack, part)? else { return Ok(None) };
                set.unite(&more);
            }
            Ok(Some(set))
        }
        Expr::Inner(inside) => candidates(pack, inside),
        Expr::All | Expr::Not(_) | Expr::Session(_) => Ok(None),
    }
}

/// Keeps of `set` what is in the next one, which is not asked for when nothing is left.
fn narrow(
    set: &mut Option<MemberSet>,
    next: impl FnOnce() -> Result<Option<MemberSet>, PackError>,
) -> Result<(), PackError> {
    if set.as_ref().is_some_and(MemberSet::is_empty) {
        return Ok(());
    }
    match (set.as_mut(), next()?) {
        (_, None) => {}
        (Some(set), Some(next)) => set.intersect(&next),
        (None, Some(next)) => *set = Some(next),
    }
    Ok(())
}

fn union(pack: &Pack, any: &[Key]) -> Result<MemberSet, PackError> {
    let mut set = MemberSet::none(pack.members().len());
    any.iter().try_for_each(|key| pack.with(key).map(|more| set.unite(&more)))?;
    Ok(set)
}

/// Whether a pack can exclude anything for this expression; the same walk as [`candidates`].
fn has_keys(expr: &Expr) -> bool {
    match expr {
        Expr::Atom(atom) => !keys(atom).is_empty(),
        Expr::And(all) => all.iter().any(has_keys),
        Expr::Or(any) => any.iter().all(has_keys),
        Expr::Inner(inside) => has_keys(inside),
        Expr::All | Expr::Not(_) | Expr::Session(_) => false,
    }
}

/// The keys that a matching row has: of each list at least one. The most telling list first.
fn keys(atom: &Atom) -> Vec<Vec<Key>> {
    let one = |kind, value: u32| vec![vec![Key { kind, value: value.into() }]];
    match *atom {
        Atom::CommunityId(id) => vec![vec![Key::flow(id.prefix64())]],
        Atom::Flow { a, b, proto } => {
            let key = FlowKey::new(a, b, proto, false).0;
            let hash = key.community_id(CommunityId::hashes_ports(proto), 0).prefix64();
            vec![vec![Key::flow(hash)], vec![host(a.0)], vec![host(b.0)]]
        }
        Atom::Addr { net, .. } => keys_of_net(net),
        Atom::Port { range: (first, last), .. } if u32::from(last.saturating_sub(first)) < KEYS_MAX => {
            vec![(first..=last).map(|port| Key { kind: KeyKind::Port, value: port.into() }).collect()]
        }
        Atom::Vlan(Some(id)) => one(KeyKind::Vlan, id.into()),
        Atom::Mpls(Some(label)) => one(KeyKind::Label, label),
        Atom::Pppoe(Some(session)) => one(KeyKind::Pppoe, session.into()),
        _ => Vec::new(),
    }
}

fn host(address: IpAddr) -> Key {
    match address {
        IpAddr::V4(v4) => Key::v4(v4),
        IpAddr::V6(v6) => Key::v6(v6),
    }
}

/// Keys of a network: itself, those it is made of, or the one around it.
fn keys_of_net(net: Prefix) -> Vec<Vec<Key>> {
    let (bits, all_bits, value) = match net.addr() {
        IpAddr::V4(v4) => (u32::from(net.bits()), 32, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (u32::from(net.bits()), 128, v6.to_bits()),
    };
    let levels: [(KeyKind, u32); 3] = if all_bits == 32 {
        [(KeyKind::V4, 32), (KeyKind::V4Net24, 24), (KeyKind::V4Net16, 16)]
    } else {
        [(KeyKind::V6, 128), (KeyKind::V6Net64, 64), (KeyKind::V6Net48, 48)]
    };
    let mut lists: Vec<Vec<Key>> = Vec::new();
    for (kind, length) in levels {
        let parts = 1u32.checked_shl(length.saturating_sub(bits)).unwrap_or(u32::MAX);
        if parts <= KEYS_MAX {
            let first = value.checked_shr(all_bits - length).unwrap_or(0);
            lists.push((first..first + u128::from(parts)).map(|value| Key { kind, value }).collect());
        }
    }
    // A host's network excludes nearly all that its own key lets pass by chance; the next wider one adds nothing.
    lists.truncate(2);
    // Few reads before many.
    lists.sort_by_key(Vec::len);
    lists
}
