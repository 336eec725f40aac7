//! Keys of Initial packets (RFC 9001, 5.2) and what they open.

use super::TAG;
use aes::cipher::BlockCipherEncrypt as _;
use aes::{Aes128, Block};
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes128Gcm, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;

/// What differs between versions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suite {
    salt: [u8; 20],
    /// Prefix of the labels.
    label: &'static str,
    /// Type bits of Initial packets.
    pub(super) initial: u8,
    /// Type bits of Retry packets.
    pub(super) retry: u8,
}

const V1: Suite = Suite {
    salt: [
        0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc,
        0xbb, 0x7f, 0x0a,
    ],
    label: "quic",
    initial: 0,
    retry: 3,
};

const V2: Suite = Suite {
    salt: [
        0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9,
        0xbd, 0x2e, 0xd9,
    ],
    label: "quicv2",
    initial: 1,
    retry: 0,
};

/// Drafts 29 to 32.
const DRAFT_29: Suite = Suite {
    salt: [
        0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97, 0x86, 0xf1, 0x9c, 0x61, 0x11, 0xe0, 0x43,
        0x90, 0xa8, 0x99,
    ],
    ..V1
};

/// Drafts 23 to 28, and Facebook's version of draft 27.
const DRAFT_23: Suite = Suite {
    salt: [
        0xc3, 0xee, 0xf7, 0x12, 0xc7, 0x2e, 0xbb, 0x5a, 0x11, 0xa7, 0xd2, 0x43, 0x2b, 0xb4, 0x63, 0x65, 0xbe,
        0xf9, 0xf5, 0x02,
    ],
    ..V1
};

impl Suite {
    /// The suite of a version, if we can open its packets.
    pub(super) const fn of(version: u32) -> Option<Self> {
        match version {
            1 | 0xff00_0021 | 0xff00_0022 => Some(V1),
            0x6b33_43cf => Some(V2),
            0xff00_001d..=0xff00_0020 => Some(DRAFT_29),
            0xff00_0017..=0xff00_001c | 0xface_b002 => Some(DRAFT_23),
            _ => None,
        }
    }
}

/// The client's keys for Initial packets.
pub(super) struct Keys {
    packet: Aes128Gcm,
    iv: [u8; 12],
    header: Aes128,
}

impl Keys {
    /// Keys from the destination id of the client's first packet.
    pub(super) fn of_client(suite: &Suite, dcid: &[u8]) -> Option<Self> {
        let (key, iv, hp) = secrets(suite, dcid)?;
        Some(Self { packet: Aes128Gcm::new(&key.into()), iv, header: Aes128::new(&hp.into()) })
    }

    /// Removes the protection of `packet` (RFC 9001, 5.3 and 5.4), whose packet number stands at `number_at`:
    /// its frames. `None` if it was not protected with these keys.
    pub(super) fn open(&self, packet: &[u8], number_at: usize) -> Option<Vec<u8>> {
        let sample: [u8; 16] = *packet.get(number_at.checked_add(4)?..)?.first_chunk()?;
        let mut mask = Block::from(sample);
        self.header.encrypt_block(&mut mask);
        let [first_mask, number_mask @ ..] = <[u8; 16]>::from(mask);
        let first = packet.first()? ^ (first_mask & 0x0f);
        let number_len = usize::from(first & 3) + 1;
        let (header, sealed) = packet.split_at_checked(number_at + number_len)?;
        let (sealed, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG)?)?;

        let mut header = header.to_vec();
        *header.first_mut()? = first;
        let mut nonce = self.iv;
        // Initial packets are the first ones: their numbers are not longer than what is sent of them.
        let skip = nonce.len() - number_len;
        for ((byte, mask), iv) in
            header.get_mut(number_at..)?.iter_mut().zip(number_mask).zip(nonce.get_mut(skip..)?)
        {
            *byte ^= mask;
            *iv ^= *byte;
        }
        let mut plain = sealed.to_vec();
        let tag = Tag::try_from(tag).ok()?;
        let nonce = Nonce::from(nonce);
        self.packet.decrypt_inout_detached(&nonce, &header, plain.as_mut_slice().into(), &tag).ok()?;
        Some(plain)
    }
}

/// Key, initialisation vector and header key.
type Secrets = ([u8; 16], [u8; 12], [u8; 16]);

fn secrets(suite: &Suite, dcid: &[u8]) -> Option<Secrets> {
    let initial = Hkdf::<Sha256>::new(Some(&suite.salt), dcid);
    let mut secret = [0; 32];
    expand(&initial, &["client in"], &mut secret)?;
    let client = Hkdf::<Sha256>::from_prk(&secret).ok()?;
    let (mut key, mut iv, mut hp) = ([0; 16], [0; 12], [0; 16]);
    expand(&client, &[suite.label, " key"], &mut key)?;
    expand(&client, &[suite.label, " iv"], &mut iv)?;
    expand(&client, &[suite.label, " hp"], &mut hp)?;
    Some((key, iv, hp))
}

/// HKDF-Expand-Label of TLS 1.3 (RFC 8446, 7.1) with an empty context.
fn expand(from: &Hkdf<Sha256>, label: &[&str], out: &mut [u8]) -> Option<()> {
    let len = u8::try_from(out.len()).ok()?;
    let text: usize = label.iter().map(|part| part.len()).sum();
    let head = [0, len, u8::try_from(6 + text).ok()?];
    let mut info = Vec::with_capacity(32);
    info.extend_from_slice(&head);
    info.extend_from_slice(b"tls13 ");
    for part in label {
        info.extend_from_slice(part.as_bytes());
    }
    info.push(0);
    from.expand(&info, out).ok()
}

/// The other direction: what a client does.
#[cfg(test)]
impl Keys {
    pub(super) fn secrets(suite: &Suite, dcid: &[u8]) -> Option<[Vec<u8>; 3]> {
        secrets(suite, dcid).map(|(key, iv, hp)| [key.to_vec(), iv.to_vec(), hp.to_vec()])
    }

    /// A packet out of its header, whose first byte announces four bytes of number, and its frames.
    pub(super) fn seal(&self, header: &[u8], number: u32, plain: &[u8]) -> Vec<u8> {
        let number = number.to_be_bytes();
        let mut packet = [header, &number].concat();
        let mut nonce = self.iv;
        nonce[8..].iter_mut().zip(number).for_each(|(iv, byte)| *iv ^= byte);
        let mut sealed = plain.to_vec();
        let buffer = sealed.as_mut_slice().into();
        let tag = self.packet.encrypt_inout_detached(&Nonce::from(nonce), &packet, buffer).unwrap();
        sealed.extend(tag);
        let mut mask = Block::from(*sealed.first_chunk::<16>().unwrap());
        self.header.encrypt_block(&mut mask);
        packet[0] ^= mask[0] & 0x0f;
        packet[header.len()..].iter_mut().zip(&mask[1..]).for_each(|(byte, mask)| *byte ^= mask);
        packet.extend(sealed);
        packet
    }
}
