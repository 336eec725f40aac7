//! A kernel of Debian's: its version, and the two things of its packages that a guest needs.
//!
//! Kept are the image and the few modules of [`MODULES`], unpacked and in the order of loading; the rest of
//! the packages is removed at once. It must never install a kernel on this machine.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::output_of;
use crate::packages;

/// What the guest loads; the second says whether it can do without.
const MODULES: &[(&str, bool)] = &[
    // Newer kernels have it built in.
    ("virtio_pci", true),
    ("virtio_net", false),
    ("veth", false),
    // Tests of the metadata in front of a packet.
    ("tun", true),
    // Lets `ss` say how a socket is bound.
    ("xsk_diag", true),
];

/// A version as Debian names it in its packages, such as `6.12.117+deb13-cloud-amd64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    name: String,
    numbers: Vec<u32>,
}

impl Version {
    /// The version in the name of a package; `None` where there is none.
    pub(crate) fn named(name: &str) -> Option<Self> {
        // Without the flavour, whose name holds a number of its own.
        let (release, _) = name.split_once("-cloud").unwrap_or((name, ""));
        let digits = release.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
        let numbers = digits.map(str::parse).collect::<Result<Vec<u32>, _>>().ok()?;
        (numbers.len() >= 2).then(|| Self { name: name.to_owned(), numbers })
    }

    /// Its name in packages and folders.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Major and minor number.
    pub(crate) fn series(&self) -> (u32, u32) {
        let number = |at| self.numbers.get(at).copied().unwrap_or_default();
        (number(0), number(1))
    }

    /// For people: without the flavour.
    pub(crate) fn short(&self) -> &str {
        self.name.split_once("-cloud").map_or(&self.name, |(short, _)| short)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| self.name.cmp(&other.name))
    }
}

/// A kernel that is ready to boot.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) version: Version,
    folder: PathBuf,
}

impl Kernel {
    /// The kernel in `folder`, if it is there.
    pub(crate) fn at(version: &Version, folder: &Path) -> Option<Self> {
        let folder = folder.join(version.name());
        folder.is_dir().then(|| Self { version: version.clone(), folder })
    }

    /// Makes it out of the packages in `packages`, in a folder of its own below `folder`.
    pub(crate) fn unpack(version: &Version, packages: &[PathBuf], folder: &Path) -> Result<Self> {
        let work = folder.join(format!(".{}-{}", version.name(), std::process::id()));
        fs::create_dir_all(work.join("kept")).with_context(|| format!("{}", work.display()))?;
        let unpacked = unpack(version, packages, &work);
        let to = folder.join(version.name());
        let kept = unpacked.and_then(|()| {
            fs::rename(work.join("kept"), &to).with_context(|| format!("making {}", to.display()))
        });
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
        kept?;
        Self::at(version, folder).context("the unpacked kernel is gone")
    }

    /// What QEMU boots.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The modules, in the order of loading.
    pub(crate) fn modules(&self) -> Result<Vec<PathBuf>> {
        let mut modules = Vec::new();
        for entry in fs::read_dir(&self.folder).with_context(|| format!("{}", self.folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "ko") {
                modules.push(path);
            }
        }
        modules.sort();
        Ok(modules)
    }
}

fn unpack(version: &Version, packages: &[PathBuf], work: &Path) -> Result<()> {
    let tree = work.join("tree");
    for package in packages {
        output_of(packages::tool("dpkg").arg("-x").arg(package).arg(&tree))?;
    }
    // Newer packages have everything below /usr; kmod looks where it always was.
    if !tree.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", tree.join("lib")).context("lib")?;
    }
    let image = format!("vmlinuz-{}", version.name());
    let places =
        [tree.join("boot").join(&image), tree.join("lib/modules").join(version.name()).join("vmlinuz")];
    let image =
        places.iter().find(|path| path.is_file()).with_context(|| format!("no {image} in the packages"))?;
    fs::copy(image, work.join("kept/vmlinuz")).context("vmlinuz")?;
    output_of(packages::tool("depmod").arg("-b").arg(&tree).arg(version.name()))?;
    for (number, module) in load_order(version, &tree)?.iter().enumerate() {
        let name = module.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let stem = name.split('.').next().unwrap_or_default();
        fs::write(work.join(format!("kept/{number:02}-{stem}.ko")), plain(module)?)
            .context(stem.to_owned())?;
    }
    Ok(())
}

/// The files of all modules and what they need, each once, in the order of loading.
fn load_order(version: &Version, tree: &Path) -> Result<Vec<PathBuf>> {
    let mut order: Vec<PathBuf> = Vec::new();
    for (module, dispensable) in MODULES {
        let mut modprobe = packages::tool("modprobe");
        modprobe.arg("-d").arg(tree).args(["-S", version.name(), "--show-depends", module]);
        let shown = match output_of(&mut modprobe) {
            Ok(shown) => shown,
            Err(_) if *dispensable => continue,
            Err(error) => return Err(error),
        };
        // Lines `insmod FILE`; what is built in is said otherwise.
        for file in String::from_utf8_lossy(&shown).lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let file = PathBuf::from(file.trim());
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    Ok(order)
}

/// The bytes of a module, which may be compressed.
fn plain(module: &Path) -> Result<Vec<u8>> {
    let unpacker = match module.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return fs::read(module).with_context(|| format!("{}", module.display())),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => bail!("{}: compressed in an unknown way", module.display()),
    };
    let mut command: Command = packages::tool(unpacker);
    output_of(command.arg("-dc").arg(module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_in_order() {
        let names = [
            "6.1.0-47-cloud-amd64",
            "6.1.0-50-cloud-amd64",
            "6.12.95+deb12-cloud-amd64",
            "6.12.117+deb13-cloud-amd64",
            "6.18.5+deb13-cloud-amd64",
            "6.18.15+deb13-cloud-amd64",
            "7.3.4+deb13-cloud-amd64",
        ];
        let versions: Vec<Version> = names.iter().map(|name| Version::named(name).unwrap()).collect();
        assert!(versions.is_sorted(), "{versions:?}");
        assert_eq!(versions[0].series(), (6, 1));
        assert_eq!(versions[3].short(), "6.12.117+deb13");
        assert_eq!(Version::named("cloud-amd64"), None);
    }
}
