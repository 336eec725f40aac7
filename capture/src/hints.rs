//! What to do about what the operating system says of a disk.

use std::error::Error;
use std::io;

/// What the operator can do about `error`, by the first errno among its causes.
pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(errno) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return of_errno(errno);
        }
        next = error.source();
    }
    None
}

/// What the operator can do about an errno of a file.
pub(crate) fn of_errno(errno: i32) -> Option<&'static str> {
    match errno {
        libc::ENOSPC => {
            Some("free space (or inodes: `df -i`) on the disk, then try again; nothing stored is lost")
        }
        libc::EDQUOT => {
            Some("the disk quota is used up: raise it or free space, then try again; nothing stored is lost")
        }
        libc::EROFS => {
            Some("the file system is read-only: `mount -o remount,rw`, or name a folder on another one")
        }
        libc::EACCES | libc::EPERM => Some(
            "this user may not write there: see `ls -ld` of the folder and those above it, or run as root",
        ),
        libc::ENOTDIR | libc::EEXIST | libc::EISDIR => {
            Some("a store is a folder: name one that is a store, or one that can be made")
        }
        libc::EIO => Some("the disk reports errors: see `dmesg`, and store on another one"),
        libc::EMFILE | libc::ENFILE => Some("raise the limit of open files: `ulimit -n 4096`"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapedeck_writer::{FileError, WriteError};

    #[test]
    fn the_errno_is_found_below_other_errors() {
        let error = |errno| {
            let source = io::Error::from_raw_os_error(errno);
            WriteError::Store(FileError { act: "create", path: "/x".into(), source })
        };
        for (errno, word) in [
            (libc::ENOSPC, "free space"),
            (libc::EDQUOT, "quota"),
            (libc::EROFS, "read-only"),
            (libc::EACCES, "may not write"),
            (libc::ENOTDIR, "a store is a folder"),
        ] {
            assert!(of(&error(errno)).unwrap().contains(word), "{errno}");
        }
        assert_eq!(of(&error(libc::EINTR)), None);
        assert_eq!(of(&io::Error::other("no errno")), None);
    }
}
