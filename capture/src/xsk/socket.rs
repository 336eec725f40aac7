//! The socket: set up, bind, receive, statistics.
//!
//! Receiving: [`XskSocket::peek`] borrows what the RX ring holds as a [`Batch`]; [`Batch::packets`] gives
//! packet after packet, which live as long as the batch, and queues the chunk of each for the fill ring;
//! dropping the batch publishes those chunks and releases the RX entries. Packets not taken stay in the
//! ring. A packet in several pieces is put together in a buffer, also when its pieces come in different
//! batches.
//!
//! It must never bind without naming the mode, for the kernel would fall back to copying in silence.

use super::ring::{FillRing, Gauge, Layout, RxRing};
use super::umem::{ChunkSize, Pages, Umem};
use crate::sys::mapping::Mapping;
use crate::sys::sockopt;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::Duration;
use tapedeck_ebpf::{FLAG_HEAD, FLAG_META, META_LEN, Meta};

/// Longest packet that is put together from pieces: 64 KiB of IP and its link header, rounded up.
const ASSEMBLY_BYTES: usize = 128 * 1024;

/// So far ahead of the packet in hand the headers of a packet are fetched into the cache, and all of it: another CPU, or
/// the card, has written it.
const HEADERS_AHEAD: u32 = 8;
const WHOLE_AHEAD: u32 = 2;
/// Bytes of headers.
const HEADERS: u32 = 128;

/// A busy queue is tried so often, so far apart.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How a socket exchanges packets with the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindMode {
    /// The NIC writes into the UMEM.
    ZeroCopy,
    /// The kernel copies into the UMEM.
    Copy,
}

/// What to open.
#[derive(Clone, Copy, Debug)]
pub struct XskConfig {
    /// Interface.
    pub ifindex: u32,
    /// Queue of the interface.
    pub queue: u32,
    /// Chunk size.
    pub chunk: ChunkSize,
    /// Take packets in several pieces (XDP_USE_SG).
    pub fragments: bool,
    /// Entries of the RX ring; a power of two.
    pub rx_entries: u32,
    /// Chunks; more than `rx_entries`.
    pub chunks: u32,
}

impl XskConfig {
    /// Entries of the fill ring, which has room for every chunk; a power of two.
    fn fill_entries(self) -> u32 {
        self.chunks.checked_next_power_of_two().unwrap_or(1 << 31)
    }
}

/// A failed step of setting up a socket.
#[derive(Debug, thiserror::Error)]
#[error("AF_XDP socket on interface {ifindex} queue {queue}: cannot {act}")]
pub struct XskError {
    /// Interface.
    pub ifindex: u32,
    /// Queue.
    pub queue: u32,
    /// What was tried.
    pub act: &'static str,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// The socket's own statistics (`struct xdp_statistics`): a cross-check. They miss packets for an
/// unbound socket or a wrong queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Dropped for want of a chunk, or as too long.
    pub rx_dropped: u64,
    /// Dropped because the RX ring was full; 0 on kernels before 5.9, which add it to `rx_dropped`.
    pub rx_ring_full: u64,
    /// Times the kernel wanted a chunk and found none. Not packets.
    pub fill_ring_empty: u64,
}

/// An AF_XDP socket that receives from one queue.
#[derive(Debug)]
pub struct XskSocket {
    // Order of the fields is the order of release: socket, rings, memory.
    fd: OwnedFd,
    rx: RxRing,
    fill: FillRing,
    _completion: Mapping,
    umem: Umem,
    config: XskConfig,
    assembly: Assembly,
    /// Packets of the batch in hand that were put together.
    joined: Vec<Vec<u8>>,
    /// Empty buffers for such packets; at most as many bytes as a batch has.
    spare: Vec<Vec<u8>>,
    misfits: u64,
    bound: bool,
}

/// A packet whose pieces have not all come yet.
#[derive(Debug)]
struct Assembly {
    bytes: Vec<u8>,
    meta: Option<Meta>,
    open: bool,
}

impl XskSocket {
    /// Opens a socket with its UMEM and rings, the fill ring full. It receives nothing before
    /// [`XskSocket::bind`].
    ///
    /// # Errors
    /// The step the kernel refused: EPERM without CAP_NET_RAW, ENOBUFS where RLIMIT_MEMLOCK is too small.
    pub fn open(config: XskConfig) -> Result<Self, XskError> {
        let fail = |act| move |source| XskError { ifindex: config.ifindex, queue: config.queue, act, source };
        let fd = socket().map_err(fail("open the socket"))?;
        let umem = Umem::new(config.chunk, config.chunks).map_err(fail("allocate the UMEM"))?;
        register(&fd, &umem, config).map_err(fail("register the UMEM"))?;
        set_ring(&fd, libc::XDP_UMEM_FILL_RING, config.fill_entries()).map_err(fail("size the fill ring"))?;
        // Nothing is ever sent, but the kernel wants the ring.
        set_ring(&fd, libc::XDP_UMEM_COMPLETION_RING, COMPLETION_ENTRIES)
            .map_err(fail("size the completion ring"))?;
        set_ring(&fd, libc::XDP_RX_RING, config.rx_entries).map_err(fail("size the RX ring"))?;
        let offsets = mmap_offsets(&fd).map_err(fail("learn the ring offsets"))?;
        let (rx, fill, completion) = map_rings(&fd, config, &offsets).map_err(fail("map the rings"))?;
        let assembly = Assembly { bytes: Vec::with_capacity(ASSEMBLY_BYTES), meta: None, open: false };
        let mut socket = Self {
            fd,
            rx,
            fill,
            _completion: completion,
            umem,
            config,
            assembly,
            joined: Vec::new(),
            spare: Vec::new(),
            misfits: 0,
            bound: false,
        };
        for addr in socket.umem.addresses() {
            socket.fill.push(addr);
        }
        socket.fill.publish();
        Ok(socket)
    }

    /// Binds to the queue. May be tried again, also in another mode, after an error. A queue that is busy
    /// is waited for, up to a second: the kernel lets go of a closed socket's queue a little later.
    ///
    /// # Errors
    /// EOPNOTSUPP where the driver has no zero-copy; EBUSY where another socket holds the queue; EINVAL
    /// for a queue the interface has not, or a chunk the driver cannot use.
    pub fn bind(&mut self, mode: BindMode) -> Result<(), XskError> {
        let XskConfig { ifindex, queue, .. } = self.config;
        let fail = |act| move |source| XskError { ifindex, queue, act, source };
        let mut flags = libc::XDP_USE_NEED_WAKEUP;
        flags |= match mode {
            BindMode::ZeroCopy => libc::XDP_ZEROCOPY,
            BindMode::Copy => libc::XDP_COPY,
        };
        if self.config.fragments {
            flags |= libc::XDP_USE_SG;
        }
        bind_patiently(&self.fd, ifindex, queue, flags).map_err(fail("bind"))?;
        self.bound = true;
        let options: libc::xdp_options =
            sockopt::get(self.as_fd(), libc::SOL_XDP, libc::XDP_OPTIONS, size_of::<libc::xdp_options>())
                .map_err(fail("read back the mode"))?;
        let zerocopy = options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
        if zerocopy != (mode == BindMode::ZeroCopy) {
            return Err(fail("bind in the mode asked for")(io::Error::from_raw_os_error(libc::EOPNOTSUPP)));
        }
        Ok(())
    }

    /// True after a successful [`XskSocket::bind`].
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.bound
    }

    /// What waits in the RX ring now, at most `max` entries. Never blocks, never fails.
    pub fn peek(&mut self, max: u32) -> Batch<'_> {
        let count = self.rx.available(max);
        Batch { count, taken: 0, socket: self }
    }

    /// Sleeps until a packet waits, at most `timeout`. Returns early when interrupted by a signal.
    ///
    /// # Errors
    /// ENETDOWN and the like, when the interface went away.
    pub fn wait(&self, timeout: Duration) -> io::Result<()> {
        crate::sys::poll::readable(self.fd.as_fd(), timeout)
    }

    /// The socket's own statistics since it was opened. Read them before dropping the socket.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn stats(&self) -> io::Result<Stats> {
        // 24 bytes on kernels before 5.9, 48 since; what the kernel does not write stays 0.
        let raw: libc::xdp_statistics = sockopt::get(self.as_fd(), libc::SOL_XDP, libc::XDP_STATISTICS, 24)?;
        Ok(Stats {
            rx_dropped: raw.rx_dropped,
            rx_ring_full: raw.rx_ring_full,
            fill_ring_empty: raw.rx_fill_ring_empty_descs,
        })
    }

    /// Entries of the RX ring that wait, percent of all.
    #[must_use]
    pub fn waiting_percent(&self) -> u32 {
        self.rx.waiting_percent()
    }

    /// A view of the RX ring's fill level for other threads.
    #[must_use]
    pub fn gauge(&self) -> Gauge {
        self.rx.gauge()
    }

    /// What the UMEM's memory consists of.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.umem.pages()
    }

    /// Entries the kernel wrote that did not fit the UMEM or our protocol; anything but 0 is a bug.
    #[must_use]
    pub fn misfits(&self) -> u64 {
        self.misfits
    }

    /// The descriptor, for the XSKMAP.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Asks a sleeping driver to look at the fill ring.
    fn wake(&self) {
        // SAFETY: no buffer is passed; the descriptor is open as long as `self`. The result says nothing
        // we could act on: the flag stays set and the next batch asks again.
        unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
    }
}

/// A packet in the UMEM, or put together from several chunks.
#[derive(Clone, Copy, Debug)]
pub struct XskPacket<'a> {
    /// What the XDP program wrote; `None` would be a packet that did not come through it.
    pub meta: Option<Meta>,
    /// The packet, from the first byte of its link header.
    pub bytes: &'a [u8],
}

/// Packets borrowed from the RX ring. Dropping it gives their chunks back to the kernel.
#[derive(Debug)]
pub struct Batch<'a> {
    socket: &'a mut XskSocket,
    count: u32,
    taken: u32,
}

impl Batch<'_> {
    /// Entries in the batch: packets, or pieces of packets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// True when nothing waited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The whole packets of the batch, in order of arrival. Those that are not asked for stay in the ring.
    pub fn packets(&mut self) -> Packets<'_> {
        Packets { socket: self.socket, count: self.count, taken: &mut self.taken }
    }
}

/// The packets of a [`Batch`].
#[derive(Debug)]
pub struct Packets<'b> {
    socket: &'b mut XskSocket,
    count: u32,
    taken: &'b mut u32,
}

impl Packets<'_> {
    /// Asks for the first `bytes` of the packet that comes so much later.
    #[inline]
    fn fetch(&self, ahead: u32, bytes: u32) {
        if self.count - *self.taken > ahead {
            let desc = self.socket.rx.read(*self.taken + ahead);
            self.socket.umem.fetch(desc.addr, desc.len.min(bytes));
        }
    }
}

impl<'b> Iterator for Packets<'b> {
    type Item = XskPacket<'b>;

    fn next(&mut self) -> Option<XskPacket<'b>> {
        while *self.taken < self.count {
            let desc = self.socket.rx.read(*self.taken);
            self.fetch(HEADERS_AHEAD, HEADERS);
            self.fetch(WHOLE_AHEAD, u32::MAX);
            *self.taken += 1;
            let Some(chunk) = self.socket.umem.chunk_of(desc.addr) else {
                self.socket.misfits += 1;
                continue;
            };
            // Queued only: the kernel sees it, and may write to the chunk, after the publish in the
            // batch's `drop`.
            self.socket.fill.push(chunk);
            let last = desc.options & libc::XDP_PKT_CONTD == 0;
            if last && !self.socket.assembly.open {
                // SAFETY: the entry is ours until the batch's `drop` releases it, which `'b` does not
                // outlive, and so is its chunk, which no later entry of the ring names: each chunk was
                // given to the kernel once.
                return Some(unsafe { self.socket.whole(desc.addr, desc.len) });
            }
            // SAFETY: as above.
            unsafe { self.socket.piece(desc.addr, desc.len) };
            if last {
                // SAFETY: the batch is dropped after `'b`.
                return Some(unsafe { self.socket.joined() });
            }
        }
        None
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.taken == 0 {
            return;
        }
        self.socket.fill.publish();
        self.socket.rx.release(self.taken);
        if self.socket.fill.needs_wakeup() {
            self.socket.wake();
        }
        let XskSocket { joined, spare, .. } = &mut *self.socket;
        spare.append(joined);
    }
}

impl XskSocket {
    /// The packet in one chunk.
    ///
    /// # Safety
    /// The chunk must be ours as long as the packet lives.
    unsafe fn whole<'b>(&mut self, addr: u64, len: u32) -> XskPacket<'b> {
        // SAFETY: the caller's promise.
        let meta = unsafe { self.meta_before(addr) };
        // SAFETY: the caller's promise.
        match unsafe { self.umem.slice(addr, len) } {
            Some(bytes) => packet(bytes, meta),
            None => {
                self.misfits += 1;
                packet(&[], meta)
            }
        }
    }

    /// The packet that was put together.
    ///
    /// # Safety
    /// The batch in hand must not be dropped before the packet.
    unsafe fn joined<'b>(&mut self) -> XskPacket<'b> {
        self.assembly.open = false;
        let empty = self.spare.pop().unwrap_or_default();
        let whole = std::mem::replace(&mut self.assembly.bytes, empty);
        // SAFETY: the bytes are a vector's, which is neither written nor freed nor grown before the batch
        // is dropped: it stands in `joined`, which only that drop empties. Moving it moves no byte.
        let bytes = unsafe { std::slice::from_raw_parts(whole.as_ptr(), whole.len()) };
        self.joined.push(whole);
        packet(bytes, self.assembly.meta)
    }

    /// Adds one piece to the packet being put together.
    ///
    /// # Safety
    /// The chunk must be ours during the call.
    unsafe fn piece(&mut self, addr: u64, len: u32) {
        if !self.assembly.open {
            self.assembly.bytes.clear();
            // SAFETY: the caller's promise.
            self.assembly.meta = unsafe { self.meta_before(addr) };
            self.assembly.open = true;
        }
        // SAFETY: the caller's promise.
        match unsafe { self.umem.slice(addr, len) } {
            Some(bytes) if self.assembly.bytes.len() + bytes.len() <= ASSEMBLY_BYTES => {
                self.assembly.bytes.extend_from_slice(bytes);
            }
            _ => self.misfits += 1,
        }
    }

    /// The metadata before a packet, taken out so that it cannot be read a second time.
    ///
    /// # Safety
    /// The chunk must be ours during the call.
    unsafe fn meta_before(&mut self, addr: u64) -> Option<Meta> {
        let at = addr.checked_sub(META_LEN as u64)?;
        // SAFETY: the caller's promise; `slice` checks that the record lies inside the packet's chunk
        // only if it begins there, which `chunk_of` of both addresses decides.
        let meta = Meta::read(unsafe { self.umem.slice(at, META_LEN_U32) }?)?;
        // SAFETY: the caller's promise; no slice is alive.
        unsafe { self.umem.clear_word(at) };
        (meta.place() == FLAG_META).then_some(meta)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "32")]
const META_LEN_U32: u32 = META_LEN as u32;

/// The packet in `bytes`, without the metadata where that stands in front.
fn packet(bytes: &[u8], meta: Option<Meta>) -> XskPacket<'_> {
    if meta.is_none()
        && let Some((head, rest)) = bytes.split_at_checked(META_LEN)
        && let Some(meta) = Meta::read(head)
        && meta.place() == FLAG_HEAD
    {
        return XskPacket { meta: Some(meta), bytes: rest };
    }
    XskPacket { meta, bytes }
}

const COMPLETION_ENTRIES: u32 = 2;

/// True if this kernel's AF_XDP takes packets in several pieces (Linux 6.6 and later).
#[must_use]
pub fn takes_pieces() -> bool {
    // Unknown flags are refused with EINVAL before the interface, which does not exist, is looked for
    // (`xsk_bind`, net/xdp/xsk.c).
    const NO_INTERFACE: u32 = i32::MAX.unsigned_abs();
    let flags = libc::XDP_COPY | libc::XDP_USE_SG;
    let refused = socket().and_then(|fd| bind(&fd, NO_INTERFACE, 0, flags));
    !refused.is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: plain arguments; the result is checked.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_ring(fd: &OwnedFd, ring: libc::c_int, entries: u32) -> io::Result<()> {
    sockopt::set(fd.as_fd(), libc::SOL_XDP, ring, &entries)
}

fn register(fd: &OwnedFd, umem: &Umem, config: XskConfig) -> io::Result<()> {
    let record = libc::xdp_umem_reg {
        addr: umem.base(),
        len: umem.bytes(),
        chunk_size: config.chunk.bytes(),
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    // SAFETY: the record names exactly the UMEM's memory, which the kernel pins: it stays until the
    // socket is closed, and `XskSocket` closes that first. Who may touch which chunk when is what the
    // rings are for.
    unsafe { sockopt::set_with_address(fd.as_fd(), libc::SOL_XDP, libc::XDP_UMEM_REG, &record) }
}

fn mmap_offsets(fd: &OwnedFd) -> io::Result<libc::xdp_mmap_offsets> {
    sockopt::get(fd.as_fd(), libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, size_of::<libc::xdp_mmap_offsets>())
}

fn map_rings(
    fd: &OwnedFd,
    config: XskConfig,
    offsets: &libc::xdp_mmap_offsets,
) -> io::Result<(RxRing, FillRing, Mapping)> {
    let misfit = || io::Error::from_raw_os_error(libc::EPROTO);
    let map = |parts: &libc::xdp_ring_offset, entries: u32, entry: usize, page: u64| {
        let place = |offset: u64| usize::try_from(offset).map_err(|_| misfit());
        let layout = Layout {
            producer: place(parts.producer)?,
            consumer: place(parts.consumer)?,
            flags: place(parts.flags)?,
            entries: place(parts.desc)?,
        };
        let len = (entries as usize).checked_mul(entry).and_then(|len| len.checked_add(layout.entries));
        let page = libc::off_t::try_from(page).map_err(|_| misfit())?;
        Ok::<_, io::Error>((Mapping::ring(fd.as_fd(), len.ok_or_else(misfit)?, page)?, layout))
    };
    let (memory, layout) = map(&offsets.rx, config.rx_entries, size_of::<libc::xdp_desc>(), 0)?;
    let rx = RxRing::new(memory, layout, config.rx_entries).ok_or_else(misfit)?;
    let (memory, layout) =
        map(&offsets.fr, config.fill_entries(), size_of::<u64>(), libc::XDP_UMEM_PGOFF_FILL_RING)?;
    let fill = FillRing::new(memory, layout, config.fill_entries()).ok_or_else(misfit)?;
    let (completion, _) =
        map(&offsets.cr, COMPLETION_ENTRIES, size_of::<u64>(), libc::XDP_UMEM_PGOFF_COMPLETION_RING)?;
    Ok((rx, fill, completion))
}

fn bind_patiently(fd: &OwnedFd, ifindex: u32, queue: u32, flags: u16) -> io::Result<()> {
    for _ in 0..BUSY_TRIES {
        match bind(fd, ifindex, queue, flags) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(BUSY_PAUSE),
            other => return other,
        }
    }
    bind(fd, ifindex, queue, flags)
}

fn bind(fd: &OwnedFd, ifindex: u32, queue: u32, flags: u16) -> io::Result<()> {
    let misfit = || io::Error::from(io::ErrorKind::InvalidInput);
    let address = libc::sockaddr_xdp {
        sxdp_family: u16::try_from(libc::AF_XDP).map_err(|_| misfit())?,
        sxdp_flags: flags,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_xdp>()).map_err(|_| misfit())?;
    // SAFETY: pointer and length name the whole of `address`, which the kernel only reads.
    let ret = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
