//! The rings against a fake kernel side that works on the same memory, with indices that start
//! anywhere in u32.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

const SIZE: u32 = 8;
const LAYOUT: Layout = Layout { producer: 0, consumer: 64, flags: 128, entries: 192 };

fn memory() -> Mapping {
    Mapping::anonymous(4096, false).unwrap()
}

/// An RX ring whose indices stand at `start`.
fn rx_at(start: u32) -> RxRing {
    let shared: Shared<Desc> = Shared::new(memory(), LAYOUT, SIZE).unwrap();
    shared.producer().store(start, Ordering::Relaxed);
    shared.consumer().store(start, Ordering::Relaxed);
    RxRing { shared: Arc::new(shared), producer: start, consumer: start }
}

/// A fill ring whose indices stand at `start`.
fn fill_at(start: u32) -> FillRing {
    let shared: Shared<u64> = Shared::new(memory(), LAYOUT, SIZE).unwrap();
    shared.producer().store(start, Ordering::Relaxed);
    shared.consumer().store(start, Ordering::Relaxed);
    FillRing { shared, producer: start, consumer: start.wrapping_sub(SIZE) }
}

/// xskq_prod_reserve_desc and xskq_prod_submit.
fn kernel_produces(ring: &RxRing, addr: u64) -> bool {
    let producer = ring.shared.producer().load(Ordering::Relaxed);
    if producer.wrapping_sub(ring.shared.consumer().load(Ordering::Acquire)) >= SIZE {
        return false;
    }
    // SAFETY: the entry lies in the ring, and the consumer has not been told of it yet.
    unsafe { ring.shared.entry(producer).as_ptr().write_volatile(Desc { addr, len: 60, options: 0 }) };
    ring.shared.producer().store(producer.wrapping_add(1), Ordering::Release);
    true
}

/// xskq_cons_read_addr_unchecked and xskq_cons_release.
fn kernel_consumes(ring: &FillRing) -> Option<u64> {
    let consumer = ring.shared.consumer().load(Ordering::Relaxed);
    if ring.shared.producer().load(Ordering::Acquire) == consumer {
        return None;
    }
    // SAFETY: the entry lies in the ring, and the producer has published it.
    let addr = unsafe { ring.shared.entry(consumer).as_ptr().read_volatile() };
    ring.shared.consumer().store(consumer.wrapping_add(1), Ordering::Release);
    Some(addr)
}

/// Index values that matter: the wrap at 2^32, the sign change, anything.
fn start() -> impl Strategy<Value = u32> {
    prop_oneof![
        (0..40u32).prop_map(|n| u32::MAX - n),
        (0..40u32).prop_map(|n| 0x8000_0000 - n),
        Just(0u32),
        any::<u32>()
    ]
}

#[derive(Clone, Debug)]
enum Act {
    Kernel(u8),
    User(u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(prop_oneof![(0..12u8).prop_map(Act::Kernel), (0..12u8).prop_map(Act::User)], 1..60)
}

proptest! {
    #[test]
    fn rx_gives_every_descriptor_once_and_in_order(start in start(), acts in acts()) {
        let mut ring = rx_at(start);
        let gauge = ring.gauge();
        let mut waiting = VecDeque::new();
        let mut next = 0u64;
        for act in acts {
            match act {
                Act::Kernel(count) => for _ in 0..count {
                    let room = waiting.len() < SIZE as usize;
                    prop_assert_eq!(kernel_produces(&ring, next), room);
                    if room {
                        waiting.push_back(next);
                        next += 1;
                    }
                },
                Act::User(max) => {
                    let count = ring.available(u32::from(max));
                    prop_assert!(count <= u32::from(max));
                    prop_assert_eq!(count as usize, waiting.len().min(usize::from(max)));
                    for offset in 0..count {
                        prop_assert_eq!(Some(ring.read(offset).addr), waiting.pop_front());
                    }
                    ring.release(count);
                }
            }
            prop_assert_eq!(gauge.backlog() as usize, waiting.len());
        }
    }

    #[test]
    fn fill_gives_every_address_once_and_in_order(start in start(), acts in acts()) {
        let mut ring = fill_at(start);
        let mut waiting = VecDeque::new();
        let mut next = 0u64;
        for act in acts {
            match act {
                Act::User(count) => {
                    for _ in 0..count {
                        let room = waiting.len() < SIZE as usize;
                        prop_assert_eq!(ring.push(next), room);
                        if room {
                            waiting.push_back(next);
                            next += 1;
                        }
                    }
                    ring.publish();
                }
                Act::Kernel(count) => for _ in 0..count {
                    prop_assert_eq!(kernel_consumes(&ring), waiting.pop_front());
                },
            }
        }
    }
}

#[test]
fn nothing_is_seen_before_it_is_published() {
    let mut ring = fill_at(u32::MAX - 2);
    for addr in 0..5 {
        assert!(ring.push(addr));
    }
    assert_eq!(kernel_consumes(&ring), None);
    ring.publish();
    assert_eq!(kernel_consumes(&ring), Some(0));
}

#[test]
fn a_producer_that_lies_gives_no_more_than_the_ring_holds() {
    let mut ring = rx_at(7);
    ring.shared.producer().store(7 + 1000, Ordering::Relaxed);
    assert_eq!(ring.available(u32::MAX), SIZE);
}

#[test]
fn rings_that_do_not_fit_are_refused() {
    assert!(Shared::<Desc>::new(memory(), LAYOUT, 6).is_none(), "no power of two");
    assert!(Shared::<Desc>::new(memory(), LAYOUT, 4096).is_none(), "longer than the mapping");
    assert!(Shared::<Desc>::new(memory(), Layout { producer: 2, ..LAYOUT }, SIZE).is_none(), "not aligned");
    assert!(Shared::<Desc>::new(memory(), Layout { entries: usize::MAX, ..LAYOUT }, SIZE).is_none());
}

#[test]
fn the_wakeup_flag_is_read() {
    let ring = fill_at(0);
    assert!(!ring.needs_wakeup());
    ring.shared.flags().store(libc::XDP_RING_NEED_WAKEUP, Ordering::Relaxed);
    assert!(ring.needs_wakeup());
}
