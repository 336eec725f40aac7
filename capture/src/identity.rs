//! Who writes: the run, the sensor, the section header of every segment, the wall clock.

use crate::voice::Failure;
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{AccessFlags, access};
use std::io::Read as _;
use std::path::Path;
use tapedeck_index::catalog::StoreFile;
use tapedeck_index::pcapng::SectionInfo;
use tapedeck_packet::Timestamp;

/// The wall clock (CLOCK_REALTIME).
#[must_use]
pub fn now() -> Timestamp {
    let nanos = clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |t| t.num_nanoseconds());
    Timestamp::from_nanos_saturating(u64::try_from(nanos).unwrap_or(0))
}

/// The random number of this process, from the kernel.
///
/// # Errors
/// No /dev/urandom.
pub fn run_number() -> Result<u32, Failure> {
    random().map(u32::from_le_bytes)
}

/// A secret for the hashes of this process, from the kernel.
///
/// # Errors
/// No /dev/urandom.
pub fn secret() -> Result<u64, Failure> {
    random().map(u64::from_le_bytes)
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|e| Failure::new(format!("reading /dev/urandom: {e}")))?;
    Ok(bytes)
}

/// What the section headers of our segments say.
#[must_use]
pub fn section() -> SectionInfo {
    let uname = nix::sys::utsname::uname().ok();
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    SectionInfo {
        hardware: uname.as_ref().map(|u| text(u.machine())),
        os: uname.as_ref().map(|u| format!("{} {}", text(u.sysname()), text(u.release()))),
        application: Some(concat!("tapedeck ", env!("CARGO_PKG_VERSION")).to_owned()),
    }
}

/// Opens a store for writing, making it if the folder is not there; returns its sensor id. A new store
/// takes the host's name.
///
/// # Errors
/// The folder holds something else, or cannot be written.
pub fn open_store(store: &Path) -> Result<String, Failure> {
    let host = nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned());
    let sensor = host.filter(|name| !name.is_empty()).unwrap_or_else(|| "sensor".into());
    match StoreFile::read_or_create(store, &sensor) {
        Ok(file) => writable(store).map(|()| file.sensor),
        Err(error) => {
            let general = "name a folder that is a tapedeck store, or one that can be made";
            Err(Failure::of(&error).hint(crate::hints::of(&error).unwrap_or(general)))
        }
    }
}

/// A store that is full takes packets again once there is room. One that may not be written to does not.
fn writable(store: &Path) -> Result<(), Failure> {
    access(store, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| {
        let failure =
            Failure::new(format!("the store {} cannot be written: {}", store.display(), errno.desc()));
        crate::hints::of(&std::io::Error::from(errno)).map_or(failure.clone(), |hint| failure.hint(hint))
    })
}

/// Checks that a folder is a store.
///
/// # Errors
/// It is not there, holds no `store.json`, or one of another version.
pub fn existing_store(store: &Path) -> Result<(), Failure> {
    match StoreFile::read(store) {
        Ok(_) => Ok(()),
        Err(error) => {
            let general = "name the folder that was given to `tapedeck record` or `import`";
            Err(Failure::of(&error).hint(crate::hints::of(&error).unwrap_or(general)))
        }
    }
}
