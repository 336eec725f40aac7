//! `taperead sessions`: one row a session, from files, journals and live journals.
//!
//! A session is in the answer when one of its records overlaps the range and the session, as its last such
//! record tells it, matches the filter. Most sessions have one record and are decided where they are read;
//! the others wait until all records of the range have been seen.

use crate::filter::{Atom, Dir, Expr, Filter, SessionAtom, TextField, Tri};
use crate::range::TimeRange;
use arrow_array::RecordBatch;
use columns::Columns;
use facts::SessionFacts;
use read::{Need, Read};
use row::Session;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use tapedeck_index::catalog::CatalogError;
use tapedeck_index::table::SESSIONS;
use tapedeck_packet::Timestamp;

pub mod columns;
pub mod facts;
pub mod out;
pub(crate) mod packets;
pub mod read;
pub mod row;
pub(crate) mod run;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Which sessions.
    pub filter: &'a Filter,
    /// When.
    pub range: TimeRange,
    /// At most so many, the first in order of time.
    pub limit: Option<u64>,
    /// Only their number is wanted.
    pub count_only: bool,
}

/// The sessions found.
#[derive(Debug, Default)]
pub struct Found {
    /// In order of first packet, then uid; empty where only their number was asked for.
    pub sessions: Vec<Session>,
    /// How many there are in all.
    pub matched: u64,
    /// What was read, and what could not be.
    pub read: Read,
}

/// A session with more than one record, or one that is open.
struct Waiting {
    session: Session,
    /// The answer if its last record so far is the last of all.
    matches: bool,
}

/// A session in order of time.
struct Ordered(Session);

impl Ordered {
    fn key(&self) -> (Timestamp, &str) {
        (self.0.ts, &self.0.uid)
    }
}

impl PartialEq for Ordered {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// Takes records, keeps what matches.
struct Collector<'a> {
    question: Question<'a>,
    found: BinaryHeap<Ordered>,
    matched: u64,
    waiting: HashMap<String, Waiting>,
    /// Numbers of the open records by uid, until the table has them.
    open: HashMap<String, u32>,
    /// A batch that is no table of sessions.
    foreign: Option<String>,
}

/// Finds the sessions that are asked for.
///
/// # Errors
/// A folder cannot be listed. Damaged files are told in [`Found::read`].
pub fn find(stores: &[PathBuf], question: Question<'_>) -> Result<Found, CatalogError> {
    let mut read = Read::default();
    let live = read::live(&SESSIONS, stores, &question.range, &mut read)?;
    let mut collector = Collector::new(question);
    live.iter().for_each(|batch| collector.learn_open(batch));
    let needs = needs(question.filter.expr());
    read::table(&SESSIONS, stores, &question.range, &needs, &mut read, &mut |batch| {
        collector.take(batch, false);
        true
    })?;
    for batch in &live {
        if let (Ok(columns), Ok(Some((t0, t1)))) =
            (Columns::new(batch), tapedeck_index::table::encode::extent(&SESSIONS, batch))
        {
            read.asked.extend((!columns.is_empty()).then(|| crate::range::Span::of_packets(t0, t1)));
        }
        collector.take(batch, true);
    }
    Ok(collector.finish(read))
}

impl<'a> Collector<'a> {
    fn new(question: Question<'a>) -> Self {
        Self {
            question,
            found: BinaryHeap::new(),
            matched: 0,
            waiting: HashMap::new(),
            open: HashMap::new(),
            foreign: None,
        }
    }

    fn learn_open(&mut self, batch: &RecordBatch) {
        let Ok(columns) = Columns::new(batch) else { return };
        for row in 0..columns.len() {
            self.open.insert(columns.uid(row).to_owned(), columns.record_number(row));
        }
    }

    /// Takes records of the table, or at the end the live ones.
    fn take(&mut self, batch: &RecordBatch, live: bool) {
        let columns = match Columns::new(batch) {
            Ok(columns) => columns,
            Err(error) => {
                self.foreign = Some(error.to_string());
                return;
            }
        };
        for row in 0..columns.len() {
            let uid = columns.uid(row);
            if live {
                // Replaced by a record of the table meanwhile.
                if !self.open.contains_key(uid) {
                    continue;
                }
            } else if self.open.get(uid).is_some_and(|open| *open <= columns.record_number(row)) {
                self.open.remove(uid);
            }
            self.row(&columns, row);
        }
    }

    fn row(&mut self, columns: &Columns<'_>, row: usize) {
        let (first, last) = columns.interval(row);
        if !self.question.range.overlaps(first, last) {
            return;
        }
        let expr = self.question.filter.expr();
        let whole = columns.is_whole(row);
        let answer = expr.eval(&SessionFacts::new(columns, row, whole));
        match (answer, whole) {
            (Tri::No, _) => {}
            (_, true) => self.matched(|| columns.session(row)),
            (_, false) => {
                let matches = expr.eval(&SessionFacts::new(columns, row, true)) == Tri::Yes;
                let session = columns.session(row);
                match self.waiting.get_mut(columns.uid(row)) {
                    Some(waiting) => {
                        if session.number >= waiting.session.number {
                            waiting.matches = matches;
                        }
                        waiting.session.merge(session);
                    }
                    None => {
                        self.waiting.insert(session.uid.clone(), Waiting { session, matches });
                    }
                }
            }
        }
    }

    fn matched(&mut self, session: impl FnOnce() -> Session) {
        self.matched += 1;
        if self.question.count_only {
            return;
        }
        self.found.push(Ordered(session()));
        let limit = self.question.limit.and_then(|limit| usize::try_from(limit).ok());
        if limit.is_some_and(|limit| self.found.len() > limit) {
            self.found.pop();
        }
    }

    fn finish(mut self, mut read: Read) -> Found {
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            if waiting.matches {
                self.matched(|| waiting.session);
            }
        }
        if let Some(what) = self.foreign {
            read.troubles.push(crate::tables::FileTrouble { path: PathBuf::from(SESSIONS.name), what });
        }
        let sessions = self.found.into_sorted_vec().into_iter().map(|ordered| ordered.0).collect();
        Found { sessions, matched: self.matched, read }
    }
}

/// Keys that every matching row holds, for Bloom filters: of the parts that must all hold.
fn needs(expr: &Expr) -> Vec<Need> {
    const BOTH: [&str; 2] = ["src_ip16", "dst_ip16"];
    let address = |columns: &[&'static str], addr: IpAddr| {
        let key = match addr {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Need { columns: columns.to_vec(), key: key.to_vec() }
    };
    match expr {
        Expr::And(parts) => parts.iter().flat_map(needs).collect(),
        Expr::Inner(inside) => needs(inside),
        Expr::Atom(Atom::Addr { dir, net, .. }) if net.is_host() => match dir {
            Dir::Either => vec![address(&BOTH, net.addr())],
            Dir::Source => vec![address(&["src_ip16"], net.addr())],
            Dir::Destination => vec![address(&["dst_ip16"], net.addr())],
            Dir::Both => BOTH.iter().map(|column| address(&[column], net.addr())).collect(),
        },
        Expr::Atom(Atom::Flow { a, b, .. }) => vec![address(&BOTH, a.0), address(&BOTH, b.0)],
        Expr::Atom(Atom::CommunityId(id)) => {
            vec![Need { columns: vec!["community_id"], key: id.to_string().into_bytes() }]
        }
        Expr::Session(SessionAtom::Text { field: TextField::Uid, pattern }) if !pattern.contains('*') => {
            vec![Need { columns: vec!["uid"], key: pattern.clone().into_bytes() }]
        }
        _ => Vec::new(),
    }
}
