//! `unsafe` lives in the files listed here, each with the reason, and nowhere else.
//!
//! A crate without such a file forbids it to itself. The list must never hold a file that needs none.

use super::Finding;
use super::rust;
use crate::repo::Source;

/// Files that may hold `unsafe`, and why.
pub(super) const LISTED: &[(&str, &str)] = &[
    ("capture/src/packet_mmap.rs", "blocks of the TPACKET_V3 ring, shared with the kernel"),
    ("capture/src/sys/ethtool.rs", "the ethtool ioctl"),
    ("capture/src/sys/mapping.rs", "mmap of rings and packet memory"),
    ("capture/src/sys/packet.rs", "bind of an AF_PACKET socket"),
    ("capture/src/sys/sockopt.rs", "socket options with records of the kernel's own"),
    ("capture/src/xsk/ring.rs", "AF_XDP rings, shared with the kernel"),
    ("capture/src/xsk/ring_tests.rs", "plays the kernel's side of the rings"),
    ("capture/src/xsk/socket.rs", "bind and options of an AF_XDP socket"),
    ("capture/src/xsk/umem.rs", "packet memory, shared with the kernel"),
    ("capture/tests/support/mod.rs", "enters a network namespace of its own"),
    ("ebpf/src/link.rs", "attaches in a mode of our choice, which libbpf-rs cannot"),
    ("ebpf/tests/filter.rs", "runs the loaded program on packets of the test's own"),
    ("index/src/mapped.rs", "maps a sidecar into memory"),
    ("writer/src/buffer.rs", "aligned memory that is read while it is filled"),
    ("writer/src/sink/uring.rs", "hands buffers to io_uring"),
    ("writer/src/sys.rs", "statx for the alignment of O_DIRECT, madvise of tables"),
];

const THIS: &str = "xtask/src/tidy/unsafe_files.rs";
const FORBID: &str = "#![forbid(unsafe_code)]";

pub(super) fn check(sources: &[Source], listed: &[(&str, &str)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.has_extension(&["rs"])) {
        let lines = rust::tokens(&source.text).map(|tokens| tokens.unsafe_lines).unwrap_or_default();
        let is_listed = listed.iter().any(|(path, _)| *path == source.path);
        match lines.first() {
            Some(line) if !is_listed => {
                let remedy = format!("use a safe call, or list the file with its reason in {THIS}");
                findings.push(Finding::new(&source.path, *line, "`unsafe` in a file not listed", remedy));
            }
            None if is_listed => {
                let remedy = format!("remove it from the list in {THIS}");
                findings.push(Finding::new(&source.path, 1, "listed for `unsafe`, holds none", remedy));
            }
            _ => {}
        }
        findings.extend(check_forbids(source, listed));
    }
    for (path, _) in listed.iter().filter(|(path, _)| !sources.iter().any(|source| source.path == *path)) {
        let what = format!("`{path}` is listed for `unsafe` and does not exist");
        findings.push(Finding::new(THIS, 1, what, "remove it from the list"));
    }
    findings
}

/// A crate root whose crate has no listed file says so to the compiler.
fn check_forbids(source: &Source, listed: &[(&str, &str)]) -> Option<Finding> {
    let root = ["/src/lib.rs", "/src/main.rs"].iter().find_map(|end| source.path.strip_suffix(end))?;
    let has_listed =
        listed.iter().any(|(path, _)| path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')));
    if has_listed || source.text.contains(FORBID) {
        return None;
    }
    let what = "no file of this crate may hold `unsafe`, and the compiler does not know";
    Some(Finding::new(&source.path, 1, what, format!("add `{FORBID}` after the module's words")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[(&str, &str)] = &[("a/src/raw.rs", "maps memory")];

    fn found(path: &str, text: &str) -> Vec<(String, usize)> {
        let raw = Source::new("a/src/raw.rs", "//! Raw.\nunsafe fn raw() {}\n");
        let mut sources = vec![raw];
        sources.retain(|source| source.path != path);
        sources.push(Source::new(path, text));
        check(&sources, LIST).into_iter().map(|finding| (finding.file, finding.line)).collect()
    }

    #[test]
    fn unsafe_outside_the_list_is_found_wherever_it_hides() {
        for code in ["unsafe { a() }", "m! { unsafe { a() } }", "#[unsafe(no_mangle)] fn b() {}"] {
            let text = format!("//! A.\n\nfn a() {{ {code} }}\n");
            assert_eq!(found("a/src/other.rs", &text), [("a/src/other.rs".into(), 3)], "{code}");
        }
        assert_eq!(found("a/src/other.rs", "//! A word: unsafe.\n// unsafe {\n"), []);
    }

    #[test]
    fn a_listed_file_without_unsafe_or_without_a_file_is_found() {
        assert_eq!(found("a/src/raw.rs", "//! Raw.\n"), [("a/src/raw.rs".into(), 1)]);
        assert_eq!(check(&[], LIST).len(), 1);
    }

    #[test]
    fn a_crate_root_without_forbid_is_found() {
        assert_eq!(found("b/src/lib.rs", "//! B.\n"), [("b/src/lib.rs".into(), 1)]);
        assert_eq!(found("b/src/lib.rs", "//! B.\n#![forbid(unsafe_code)]\n"), []);
        // The crate of the listed file cannot forbid it.
        assert_eq!(found("a/src/lib.rs", "//! A.\n"), []);
    }
}
