//! A sink that fails on command: for tests. What it does write goes to the real file.

use super::{Durable, Piece, Prefix, Sink, SinkKind, WriteFailure};
use crate::buffer::Arena;
use crate::sinks::SinkMaker;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// What goes wrong; shared by all sinks of a chain.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// Writes done so far, over all files.
    pub(crate) writes: AtomicU64,
    /// These many writes succeed, then one fails; 0 = none fails.
    pub(crate) fail_after: AtomicU64,
    /// The failing write still writes its first half.
    pub(crate) tear: AtomicBool,
    /// Bytes that fit on the disk, over all files; 0 = without end.
    pub(crate) disk_bytes: AtomicU64,
    /// Bytes written.
    pub(crate) used_bytes: AtomicU64,
    /// While set there is room for no write.
    pub(crate) stuck: AtomicBool,
    /// Files that cannot be set up while this is set.
    pub(crate) refuse: AtomicBool,
    /// Microseconds that a sync takes.
    pub(crate) sync_us: AtomicU64,
    /// Every file that was set up, and whether it has been cut since.
    files: Mutex<Vec<(Weak<File>, bool)>>,
    /// As many as were held at once when another one was set up, and of them not cut.
    most: Mutex<(usize, usize)>,
}

impl Trouble {
    /// As many files as were held at once when another one was set up; as many of them with room kept for more.
    pub(crate) fn most_open(&self) -> (usize, usize) {
        *self.most.lock().unwrap()
    }

    fn note_open(&self, file: &Arc<File>) {
        let mut files = self.files.lock().unwrap();
        files.retain(|(file, _)| file.strong_count() > 0);
        files.push((Arc::downgrade(file), false));
        let uncut = files.iter().filter(|(_, cut)| !cut).count();
        let mut most = self.most.lock().unwrap();
        *most = (most.0.max(files.len()), most.1.max(uncut));
    }

    fn note_cut(&self, file: &Arc<File>) {
        let mut files = self.files.lock().unwrap();
        let cut = files.iter_mut().filter(|(other, _)| other.as_ptr() == Arc::as_ptr(file));
        cut.for_each(|(_, cut)| *cut = true);
    }

    /// Whether the next write of `len` bytes fails, and how.
    fn next(&self, len: u64) -> Result<(), io::ErrorKind> {
        let number = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        let fail_after = self.fail_after.load(Ordering::SeqCst);
        if fail_after > 0 && number == fail_after + 1 {
            return Err(io::ErrorKind::Other);
        }
        let disk = self.disk_bytes.load(Ordering::SeqCst);
        if disk > 0 && self.used_bytes.load(Ordering::SeqCst) + len > disk {
            return Err(io::ErrorKind::StorageFull);
        }
        self.used_bytes.fetch_add(len, Ordering::SeqCst);
        Ok(())
    }
}

/// Makes [`Double`]s.
pub(crate) struct Doubles(pub(crate) Arc<Trouble>);

impl SinkMaker for Doubles {
    fn direct(&self) -> bool {
        false
    }

    fn block(&self) -> usize {
        4096
    }

    fn make(&self, file: Arc<File>, _limit_bytes: u64, _arena: &Arc<Arena>) -> io::Result<Box<dyn Sink>> {
        if self.0.refuse.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.note_open(&file);
        Ok(Box::new(Double { file, trouble: Arc::clone(&self.0), prefix: Prefix::default(), failure: None }))
    }
}

struct Double {
    file: Arc<File>,
    trouble: Arc<Trouble>,
    prefix: Prefix,
    failure: Option<WriteFailure>,
}

impl Sink for Double {
    fn kind(&self) -> SinkKind {
        SinkKind::Plain
    }

    fn has_room(&self) -> bool {
        !self.trouble.stuck.load(Ordering::SeqCst)
    }

    fn submit(&mut self, piece: Piece) {
        while !self.has_room() {
            self.wait(Duration::from_millis(1));
        }
        if self.failure.is_some() {
            return;
        }
        self.prefix.begin(piece.end());
        match self.trouble.next(super::to_u64(piece.len)) {
            Ok(()) => {
                self.file.write_all_at(piece.bytes(), piece.offset).unwrap();
                self.prefix.complete(piece.end());
            }
            Err(kind) => {
                if self.trouble.tear.load(Ordering::SeqCst) {
                    self.file.write_all_at(&piece.bytes()[..piece.len / 2], piece.offset).unwrap();
                }
                let (offset, len) = (piece.offset, piece.len);
                self.failure = Some(WriteFailure { offset, len, source: kind.into() });
            }
        }
    }

    fn reap(&mut self) {}

    fn wait(&mut self, timeout: Duration) {
        std::thread::sleep(timeout.min(Duration::from_millis(1)));
    }

    fn in_flight(&self) -> usize {
        0
    }

    fn completed(&self) -> u64 {
        self.prefix.end()
    }

    fn failure(&self) -> Option<&WriteFailure> {
        self.failure.as_ref()
    }

    fn durable(&self) -> Arc<dyn Durable> {
        Arc::new(SlowFile { file: Arc::clone(&self.file), trouble: Arc::clone(&self.trouble) })
    }
}

/// A file whose sync takes its time.
struct SlowFile {
    file: Arc<File>,
    trouble: Arc<Trouble>,
}

impl Durable for SlowFile {
    fn sync(&self) -> io::Result<()> {
        std::thread::sleep(Duration::from_micros(self.trouble.sync_us.load(Ordering::SeqCst)));
        Durable::sync(&*self.file)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.trouble.note_cut(&self.file);
        self.file.truncate(len)
    }
}
