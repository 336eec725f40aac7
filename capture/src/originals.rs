//! What an interface was set to before a recorder changed it, kept in a file until it is set back.
//!
//! Written before each change, so that after `kill -9` the next recorder of the interface knows what to
//! put back at its end, and never takes what the killed one left for the interface's own. One file per
//! network namespace, interface number and hardware address: another interface in its place is another
//! file. It must never outlive the settings it speaks of.

use crate::lock;
use crate::sys::ethtool::{Channels, Hashing, Offload, Stamping};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::PathBuf;

/// Names another folder for these files.
const FOLDER_VARIABLE: &str = "TAPEDECK_STATE_DIR";

/// The settings that were changed, as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Settings {
    /// Interface name, for people who read the file.
    interface: String,
    /// Offloads that were on.
    offloads: Vec<Offload>,
    /// Queue counts.
    channels: Option<Channels>,
    /// Receive hashing.
    hashing: Option<Hashing>,
    /// Which packets the card stamps.
    stamping: Option<Stamping>,
}

/// The settings of one interface and their file.
#[derive(Debug)]
pub(crate) struct Originals {
    path: Option<PathBuf>,
    settings: Settings,
}

impl Originals {
    /// What a recorder that did not end in order has noted of this interface; nothing if there was none.
    pub(crate) fn load(interface: &str, ifindex: u32, mac: &[u8]) -> Self {
        let path = folder().map(|folder| {
            let mac: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
            folder.join(format!("{}-{ifindex}-{mac}.settings.json", lock::namespace()))
        });
        if path.is_none() {
            tracing::warn!(
                interface,
                "no folder for notes: after a kill -9 the settings of the interface stay as they are"
            );
        }
        Self::at(path, interface)
    }

    fn at(path: Option<PathBuf>, interface: &str) -> Self {
        let text = path.as_ref().and_then(|path| fs::read(path).ok());
        let known = text.and_then(|text| match serde_json::from_slice::<Settings>(&text) {
            Ok(settings) => Some(settings),
            Err(error) => {
                tracing::warn!(interface, %error, "the notes of a former recorder are not understood");
                None
            }
        });
        let settings = Settings { interface: interface.to_owned(), ..known.unwrap_or_default() };
        Self { path, settings }
    }

    /// Whether anything is to be set back.
    pub(crate) fn is_empty(&self) -> bool {
        let Settings { offloads, channels, hashing, stamping, .. } = &self.settings;
        offloads.is_empty() && channels.is_none() && hashing.is_none() && stamping.is_none()
    }

    /// The offloads that were on.
    pub(crate) fn offloads(&self) -> &[Offload] {
        &self.settings.offloads
    }

    /// The queue counts as they were, if they were changed.
    pub(crate) fn channels(&self) -> Option<Channels> {
        self.settings.channels
    }

    /// The receive hashing as it was, if it was changed.
    pub(crate) fn hashing(&self) -> Option<&Hashing> {
        self.settings.hashing.as_ref()
    }

    /// Notes that an offload is on, before it is switched off.
    pub(crate) fn note_offload(&mut self, which: Offload) {
        self.change(|settings| settings.offloads.push(which));
    }

    /// The offload is on again, or was not switched off after all.
    pub(crate) fn forget_offload(&mut self, which: Offload) {
        self.change(|settings| settings.offloads.retain(|noted| *noted != which));
    }

    /// Notes the queue counts before they are changed, unless they are noted; `None` = they are back.
    pub(crate) fn note_channels(&mut self, channels: Option<Channels>) {
        self.change(|settings| settings.channels = channels.map(|new| settings.channels.unwrap_or(new)));
    }

    /// Notes the receive hashing before it is changed, unless it is noted; `None` = it is back.
    pub(crate) fn note_hashing(&mut self, hashing: Option<Hashing>) {
        self.change(|settings| {
            settings.hashing = hashing.map(|new| settings.hashing.take().unwrap_or(new));
        });
    }

    /// Which packets the card stamped, if that was changed.
    pub(crate) fn stamping(&self) -> Option<Stamping> {
        self.settings.stamping
    }

    /// Notes which packets the card stamps before that is changed, unless it is noted; `None` = it is back.
    pub(crate) fn note_stamping(&mut self, stamping: Option<Stamping>) {
        self.change(|settings| settings.stamping = stamping.map(|new| settings.stamping.unwrap_or(new)));
    }

    /// The interface is no more, and neither are its settings.
    pub(crate) fn discard(&mut self) {
        self.change(|settings| *settings = Settings::default());
    }

    /// Changes the notes, in memory and on disk.
    fn change(&mut self, change: impl FnOnce(&mut Settings)) {
        let before = self.settings.clone();
        change(&mut self.settings);
        if self.settings != before
            && let Err(error) = self.save()
        {
            let interface = &self.settings.interface;
            tracing::warn!(interface, %error, "the settings of the interface cannot be noted");
        }
    }

    fn save(&self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if self.is_empty() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let hidden = path.with_extension("new");
        fs::write(&hidden, serde_json::to_vec(&self.settings)?)?;
        fs::rename(&hidden, path)
    }
}

/// The folder of the locks, or the one the environment names.
fn folder() -> Option<PathBuf> {
    match std::env::var_os(FOLDER_VARIABLE) {
        Some(folder) => {
            let folder = PathBuf::from(folder);
            fs::create_dir_all(&folder).ok().map(|()| folder)
        }
        None => lock::folder().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_note_stays_until_it_is_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let load = || Originals::at(Some(path.clone()), "eth1");
        let hashing = |byte| Hashing::of_bytes(byte, 4);
        let mut killed = load();
        assert!(killed.is_empty());
        killed.note_offload(Offload::RxVlan);
        killed.note_channels(Some(Channels::of(8)));
        killed.note_hashing(Some(hashing(1)));
        std::mem::forget(killed);
        // The next recorder finds the interface as the killed one left it, and notes that in vain.
        let mut next = load();
        assert_eq!(next.offloads(), [Offload::RxVlan]);
        next.note_channels(Some(Channels::of(2)));
        next.note_hashing(Some(hashing(2)));
        next.note_offload(Offload::Gro);
        let again = load();
        assert_eq!((again.channels(), again.hashing()), (Some(Channels::of(8)), Some(&hashing(1))));
        assert_eq!(again.offloads(), [Offload::RxVlan, Offload::Gro]);
        next.forget_offload(Offload::RxVlan);
        next.forget_offload(Offload::Gro);
        next.note_channels(None);
        assert!(path.exists() && !load().is_empty());
        next.note_hashing(None);
        assert!(!path.exists() && load().is_empty());
    }

    #[test]
    fn notes_that_are_not_understood_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        fs::write(&path, b"{\"interface\":").unwrap();
        let mut originals = Originals::at(Some(path.clone()), "eth1");
        assert!(originals.is_empty());
        originals.note_offload(Offload::Lro);
        originals.discard();
        assert!(!path.exists());
    }
}
