//! Puts a filter into the program's maps, without a moment of another one.
//!
//! There are two slots of every table. A new filter is written into the one that no CPU reads
//! ([`FilterMaps::prepare`]), then one word says which is in use ([`FilterMaps::switch`]); it must never write
//! into the other one, nor return from the switch while a CPU may still read the former slot.

use super::tables::{self, PORTS, PROTOS, Tables, VLANS};
use super::{Filter, Network};
use crate::ProgramError;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use std::os::fd::{AsFd as _, AsRawFd as _};

/// The maps of `filter.h`.
#[derive(Debug)]
pub(crate) struct FilterMaps {
    used: MapHandle,
    heads: MapHandle,
    nets4: MapHandle,
    nets6: MapHandle,
    vlans: MapHandle,
    ports: MapHandle,
    protos: MapHandle,
    fence: MapHandle,
    fence_inner: MapHandle,
}

impl FilterMaps {
    /// Those that `map` gives by their names.
    pub(crate) fn named<E>(map: impl Fn(&str) -> Result<MapHandle, E>) -> Result<Self, E> {
        Ok(Self {
            used: map("filter_use")?,
            heads: map("filter_heads")?,
            nets4: map("filter_nets4")?,
            nets6: map("filter_nets6")?,
            vlans: map("filter_vlans")?,
            ports: map("filter_ports")?,
            protos: map("filter_protos")?,
            fence: map("filter_fence")?,
            fence_inner: map("filter_fence_inner")?,
        })
    }

    /// Generation in use; 0 before the first one.
    pub(crate) fn generation(&self) -> Result<u32, ProgramError> {
        let fail = |source| ProgramError::Map { act: "read", map: "filter_use", source };
        let value = self.used.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).map_err(fail)?;
        let word = value.as_deref().and_then(<[u8]>::first_chunk);
        word.map(|word| u32::from_ne_bytes(*word)).ok_or(ProgramError::Layout { map: "filter_use" })
    }

    /// Writes a filter into the slot that is not in use. Returns its generation.
    pub(crate) fn prepare(&self, filter: &Filter) -> Result<u32, ProgramError> {
        // 0 means that there was never one.
        let generation = self.generation()?.checked_add(1).unwrap_or(2);
        let slot = generation & 1;
        let tables = Tables::of(filter);
        self.write_nets(slot, &tables.nets)?;
        let pairs: Vec<u8> = tables.vlans.iter().flat_map(|bits| bits.bytes()).collect();
        write_all(&self.vlans, "filter_vlans", slot, VLANS, &pairs)?;
        let words = |list: &[u64]| list.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        write_all(&self.ports, "filter_ports", slot, PORTS, &words(&tables.ports))?;
        write_all(&self.protos, "filter_protos", slot, PROTOS, &words(&tables.protos))?;
        let Tables { keep, skip, any_net, any_vlan, any_proto, any_port, .. } = &tables;
        let heads = [keep, skip, &any_net.a, &any_net.b, &any_vlan.a, &any_vlan.b, any_proto, any_port];
        write_all(&self.heads, "filter_heads", slot, 1, &words(&heads.map(|word| *word)))?;
        Ok(generation)
    }

    /// The prepared filter decides from here on: when this returns, no CPU asks the former one any more.
    pub(crate) fn switch(&self, generation: u32) -> Result<(), ProgramError> {
        let zero = 0u32.to_ne_bytes();
        let fail = |map| move |source| ProgramError::Map { act: "write", map, source };
        self.used.update(&zero, &generation.to_ne_bytes(), MapFlags::ANY).map_err(fail("filter_use"))?;
        // The kernel waits for running programs here; see filter.h.
        let inner = self.fence_inner.as_fd().as_raw_fd().to_ne_bytes();
        self.fence.update(&zero, &inner, MapFlags::ANY).map_err(fail("filter_fence"))
    }

    fn write_nets(&self, slot: u32, nets: &[(Network, tables::Bits)]) -> Result<(), ProgramError> {
        for (map, name, of_version) in
            [(&self.nets4, "filter_nets4", true), (&self.nets6, "filter_nets6", false)]
        {
            let of_slot = |key: &Vec<u8>| key.get(4..8) == Some(&slot.to_ne_bytes());
            // Gathered first: deleting under way would lose the place.
            let old: Vec<Vec<u8>> = map.keys().filter(of_slot).collect();
            for key in old {
                map.delete(&key).map_err(|source| ProgramError::Map { act: "clear", map: name, source })?;
            }
            for (net, bits) in nets.iter().filter(|(net, _)| net.address.is_ipv4() == of_version) {
                map.update(&tables::key(net, slot), &bits.bytes(), MapFlags::ANY)
                    .map_err(|source| ProgramError::Map { act: "write", map: name, source })?;
            }
        }
        Ok(())
    }
}

/// Writes a slot of an array whole.
fn write_all(
    map: &MapHandle,
    name: &'static str,
    slot: u32,
    count: usize,
    values: &[u8],
) -> Result<(), ProgramError> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let first = slot * count;
    let keys: Vec<u8> = (first..first + count).flat_map(u32::to_ne_bytes).collect();
    map.update_batch(&keys, values, count, MapFlags::ANY, MapFlags::ANY).map_err(|source| ProgramError::Map {
        act: "write",
        map: name,
        source,
    })
}
