//! Kernels and newer programs out of Debian's archive, past the machine's own package lists.
//!
//! The machine's entry for its archive is copied, with other suites, into a private folder for apt, which has
//! lists, cache and an empty status of its own. It must never change what apt knows of this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::kernel::{Kernel, Version};
use super::output_of;
use crate::packages;

/// Where the kernels of the matrix are; the archive keeps several in each.
const SUITES: &[&str] = &["bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid"];
/// Names of suites that mark the entry of the archive itself.
const KNOWN: &[&str] =
    &["bookworm", "trixie", "forky", "duke", "sid", "oldstable", "stable", "testing", "unstable"];
/// Kernels for virtual machines: small, with all that a guest of ours needs.
const FLAVOUR: &str = "-cloud-amd64";
/// Lists are asked for anew when they are older.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// The private folder: packages lists, and the kernels that were fetched.
#[derive(Debug)]
pub(crate) struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// Opens it below `folder`; the lists are those of today, or those at hand without network.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let archive = Self { folder: folder.to_owned() };
        for part in ["apt/state/lists/partial", "apt/cache/archives/partial", "packages", "kernels"] {
            fs::create_dir_all(folder.join(part)).with_context(|| format!("{}", folder.display()))?;
        }
        let entry = machines_entry()?;
        let sources = archive.sources(&entry);
        let same = fs::read_to_string(&sources).is_ok_and(|text| text == entry.text);
        let stamp = folder.join("apt/updated");
        if !same || !is_fresh(&stamp) {
            fs::write(&sources, &entry.text).with_context(|| format!("{}", sources.display()))?;
            fs::write(folder.join("apt/status"), "").context("apt/status")?;
            fs::write(folder.join("apt/entry"), entry.kind).context("apt/entry")?;
            let updated = output_of(archive.apt("apt-get")?.args(["update", "-q"]));
            let known = archive.kernels().is_ok_and(|kernels| !kernels.is_empty());
            match updated {
                Ok(_) if known => fs::write(&stamp, "").context("apt/updated")?,
                Ok(_) => bail!("the archive holds no kernel for guests"),
                // A suite may be gone, or the network; what is known may do.
                Err(error) if known => eprintln!("    the package lists are not those of today: {error:#}"),
                Err(error) => return Err(error.context("the package lists cannot be had")),
            }
        }
        Ok(archive)
    }

    /// Every kernel there is, oldest first.
    pub(crate) fn kernels(&self) -> Result<Vec<Version>> {
        let mut found: Vec<Version> =
            self.names("linux-image-")?.iter().filter_map(|name| version_of(name)).collect();
        found.sort();
        Ok(found)
    }

    /// Fetches a kernel, if it is not there yet.
    pub(crate) fn fetch(&self, version: &Version) -> Result<Kernel> {
        let kernels = self.folder.join("kernels");
        if let Some(kernel) = Kernel::at(version, &kernels) {
            return Ok(kernel);
        }
        // One package holds all, or image and modules have one each.
        let mut wanted = Vec::new();
        for part in ["linux-image-", "linux-binary-", "linux-modules-"] {
            let name = format!("{part}{}", version.name());
            wanted.extend(self.names(&name)?.into_iter().filter(|found| *found == name));
        }
        let folder = self.folder.join("packages").join(std::process::id().to_string());
        fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        let mut download = self.apt("apt-get")?;
        download.current_dir(&folder).args(["download", "-q"]).args(&wanted);
        let unpacked = output_of(&mut download).and_then(|_| {
            let files = fs::read_dir(&folder)?.map(|entry| entry.map(|entry| entry.path()));
            Kernel::unpack(version, &files.collect::<Result<Vec<_>, _>>()?, &kernels)
        });
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        unpacked
    }

    /// Unpacks a package of `suite`, and everything it needs to run, below `to`, if it is not there yet.
    /// Nothing of it is installed.
    pub(crate) fn unpack(&self, package: &str, suite: &str, to: &Path) -> Result<()> {
        if to.exists() {
            return Ok(());
        }
        let archives = self.folder.join("packages").join(format!("{package}-{}", std::process::id()));
        let tree = archives.join("tree");
        fs::create_dir_all(archives.join("partial")).with_context(|| format!("{}", archives.display()))?;
        let mut download = self.apt("apt-get")?;
        download.arg("-o").arg(format!("Dir::Cache::archives={}", archives.display()));
        download.args(["install", "-y", "-q", "--no-install-recommends", "--download-only"]);
        let unpacked = output_of(download.args(["-t", suite, package])).and_then(|_| {
            for entry in fs::read_dir(&archives)? {
                let file = entry?.path();
                if file.extension().is_some_and(|extension| extension == "deb") {
                    output_of(packages::tool("dpkg").arg("-x").arg(&file).arg(&tree))?;
                }
            }
            fs::rename(&tree, to).with_context(|| format!("renaming to {}", to.display()))
        });
        fs::remove_dir_all(&archives).with_context(|| format!("removing {}", archives.display()))?;
        unpacked
    }

    fn names(&self, start: &str) -> Result<Vec<String>> {
        let shown = output_of(self.apt("apt-cache")?.args(["pkgnames", start]))?;
        Ok(String::from_utf8_lossy(&shown).lines().map(str::to_owned).collect())
    }

    fn sources(&self, entry: &Entry) -> PathBuf {
        self.folder.join("apt").join(format!("own.{}", entry.kind))
    }

    /// An apt command that knows the private folder only.
    fn apt(&self, program: &str) -> Result<Command> {
        let home = self.folder.join("apt");
        let kind = fs::read_to_string(home.join("entry")).context("apt/entry")?;
        let mut command = packages::tool(program);
        for (key, value) in [
            ("Dir::Etc::sourcelist", home.join(format!("own.{kind}"))),
            ("Dir::Etc::sourceparts", PathBuf::from("-")),
            ("Dir::State", home.join("state")),
            ("Dir::State::status", home.join("status")),
            ("Dir::Cache", home.join("cache")),
        ] {
            command.arg("-o").arg(format!("{key}={}", value.display()));
        }
        for option in [
            "APT::Sandbox::User=root",
            // Also what can be had another time is an error now.
            "APT::Update::Error-Mode=any",
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ] {
            command.args(["-o", option]);
        }
        Ok(command)
    }
}

fn is_fresh(stamp: &Path) -> bool {
    let age = fs::metadata(stamp).and_then(|m| m.modified()).map(|at| SystemTime::now().duration_since(at));
    matches!(age, Ok(Ok(age)) if age < FRESH)
}

fn version_of(package: &str) -> Option<Version> {
    let name = package.strip_prefix("linux-image-")?;
    name.ends_with(FLAVOUR).then(|| Version::named(name)).flatten()
}

/// Sources for the private folder.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// How apt tells the two forms apart: the end of the file's name.
    kind: &'static str,
    text: String,
}

/// The machine's entry for its archive, with our suites.
fn machines_entry() -> Result<Entry> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    files.extend(parts.map(|entry| entry.path()));
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let found = match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => stanza_of(&text),
            Some("list") => line_of(&text),
            _ => None,
        };
        if let Some(entry) = found {
            return Ok(entry);
        }
    }
    bail!("apt knows no archive of Debian's")
}

fn stanza_of(text: &str) -> Option<Entry> {
    let plain: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let plain = plain.join("\n");
    let field = |stanza: &str, name: &str| -> Option<String> {
        stanza.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let stanza = plain.split("\n\n").find(|stanza| {
        let suites = field(stanza, "Suites:").unwrap_or_default();
        field(stanza, "Types:").is_some_and(|types| types.split_whitespace().any(|t| t == "deb"))
            && field(stanza, "Enabled:").is_none_or(|on| on == "yes")
            && suites.split_whitespace().any(|suite| KNOWN.contains(&suite))
    })?;
    let mut text = String::new();
    for line in stanza.lines().filter(|line| !line.trim().is_empty()) {
        match line.split_once(':') {
            Some(("Types", _)) => text.push_str("Types: deb"),
            Some(("Suites", _)) => text.push_str(&format!("Suites: {}", SUITES.join(" "))),
            Some(("Components", _)) => text.push_str("Components: main"),
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    Some(Entry { kind: "sources", text })
}

fn line_of(text: &str) -> Option<Entry> {
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
        let rest = rest.trim();
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (format!("[{options}] "), rest),
            None => (String::new(), rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        if KNOWN.contains(&suite) {
            let lines = SUITES.iter().map(|suite| format!("deb {options}{uri} {suite} main\n"));
            return Some(Entry { kind: "list", text: lines.collect() });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archives_stanza_is_copied_with_our_suites() {
        let text = "Types: deb deb-src\nURIs: http://mirror/debian-security\nSuites: trixie-security\n\n\
                    Types: deb deb-src\n# a remark\nURIs: http://mirror/debian\nSuites: trixie trixie-updates\n\
                    Components: main contrib\nSigned-By: key.gpg\n";
        let entry = stanza_of(text).unwrap();
        let suites = SUITES.join(" ");
        assert_eq!(
            entry.text,
            format!(
                "Types: deb\nURIs: http://mirror/debian\nSuites: {suites}\nComponents: main\nSigned-By: key.gpg\n"
            )
        );
        assert_eq!(stanza_of("Types: deb\nURIs: http://other\nSuites: nodistro\n"), None);
    }

    #[test]
    fn the_archives_line_is_copied_with_our_suites() {
        let text = "# deb http://old bookworm main\ndeb http://mirror/security trixie-security main\n\
                    deb [signed-by=key.gpg] http://mirror/debian trixie main contrib\n";
        let entry = line_of(text).unwrap();
        assert!(entry.text.starts_with("deb [signed-by=key.gpg] http://mirror/debian bookworm main\n"));
        assert_eq!(entry.text.lines().count(), SUITES.len());
        assert_eq!(line_of("deb http://other nodistro main\n"), None);
    }

    #[test]
    fn only_signed_images_for_virtual_machines_count() {
        assert!(version_of("linux-image-6.1.0-50-cloud-amd64").is_some());
        for other in [
            "linux-image-cloud-amd64",
            "linux-image-6.1.0-50-amd64",
            "linux-image-6.1.0-50-cloud-amd64-unsigned",
            "linux-image-6.1.0-50-cloud-amd64-dbg",
        ] {
            assert_eq!(version_of(other), None, "{other}");
        }
    }
}
