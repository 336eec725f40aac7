//! What is checked in a guest, and on which kernels it holds. All of it is data.
//!
//! Each check is one test of `capture/tests/live`. It must never leave a difference between kernels to
//! chance: where a check does not hold, its reason stands here, and where something else holds instead,
//! that is a check of its own.

use super::kernel::Version;

/// Kernel series.
type Series = (u32, u32);

/// First series in which AF_XDP takes packets in several pieces.
const MULTI_BUFFER: Series = (6, 6);
/// First series in which virtio-net says that it does zero-copy.
const VIRTIO_ZERO_COPY: Series = (6, 13);
const EVER: Series = (u32::MAX, 0);

/// One check.
#[derive(Debug)]
pub(crate) struct Check {
    /// For people.
    pub(crate) claim: &'static str,
    /// Path of the test.
    pub(crate) test: &'static str,
    from: Series,
    before: Series,
    /// Why it is not asked of the other kernels.
    pub(crate) reason: &'static str,
    /// Part of the one guest of `cargo xtask test`.
    pub(crate) quick: bool,
}

const fn always(claim: &'static str, test: &'static str) -> Check {
    Check { claim, test, from: (0, 0), before: EVER, reason: "", quick: false }
}

const fn since(from: Series, reason: &'static str, claim: &'static str, test: &'static str) -> Check {
    Check { claim, test, from, before: EVER, reason, quick: false }
}

const fn before(before: Series, reason: &'static str, claim: &'static str, test: &'static str) -> Check {
    Check { claim, test, from: (0, 0), before, reason, quick: false }
}

const fn quick(check: Check) -> Check {
    Check { quick: true, ..check }
}

/// Everything that is checked, in the order of running.
pub(crate) const CHECKS: &[Check] = &[
    quick(always("attach in the driver, each packet once", "xsk::native_mode_gives_each_packet_once")),
    always("attach in skb mode, each packet once", "xsk::skb_mode_gives_each_packet_once"),
    always("a full ring is counted packet by packet", "xsk::a_full_ring_is_counted_packet_by_packet"),
    always("an empty slot is counted, its packets passed on", "xsk::an_empty_slot_is_counted_and_passed_on"),
    always(
        "unbound socket and wrong queue told apart",
        "xsk::an_unbound_socket_and_a_wrong_queue_are_told_apart",
    ),
    always("record, mode copy: numbered packets complete", "record::copy_mode_stores_each_packet_once"),
    always("record, mode skb: numbered packets complete", "record::skb_mode_stores_each_packet_once"),
    always("record, mode packet: numbered packets complete", "record::packet_mode_stores_each_packet_once"),
    always("retrieve: live, sealed, verified", "guest::what_is_recorded_is_retrieved"),
    always("identity under overload, copy", "record::a_stopped_recorder_loses_by_the_book_in_copy_mode"),
    always("identity under overload, skb", "record::a_stopped_recorder_loses_by_the_book_in_skb_mode"),
    always("a killed recorder is recovered", "record::a_killed_recorder_is_recovered_by_the_next"),
    always(
        "filters: exactly the filtered packets are missing and counted",
        "filter::exactly_the_filtered_packets_are_missing",
    ),
    always("another filter comes in without a gap", "filter::another_filter_comes_in_without_a_gap"),
    always(
        "killed under load five times: no packet unaccounted",
        "kills::five_kills_under_load_leave_no_packet_unaccounted",
    ),
    always(
        "what passes while nobody records is counted to the packet",
        "takeover::what_passes_while_nobody_records_is_down_to_the_packet",
    ),
    always(
        "lost packets stand in their seconds of the ledger",
        "ledger::lost_packets_stand_in_the_seconds_in_which_they_were_sent",
    ),
    always("VLAN tags kept, one and two", "guest::tags_are_stored"),
    since(
        MULTI_BUFFER,
        "no multi-buffer AF_XDP",
        "jumbo packets whole",
        "guest::jumbo_packets_are_stored_whole",
    ),
    before(
        MULTI_BUFFER,
        "has multi-buffer AF_XDP",
        "jumbo packets counted as oversize, the others stored",
        "guest::jumbo_packets_in_one_buffer_are_counted",
    ),
    quick(always(
        "clock stepped by 1 h, 30 years, TAI offset set: nothing lost or misfiled, quarantine written",
        "clock::a_stepped_clock_loses_and_misfiles_nothing",
    )),
    always("the same in packet mode", "clock::a_stepped_clock_misfiles_nothing_in_packet_mode"),
    always(
        "30 years ahead and back with --accept-clock: followed, nothing lost or misfiled",
        "clock::a_jump_of_the_clock_that_is_accepted_loses_and_misfiles_nothing",
    ),
    always(
        "the same in packet mode",
        "clock::a_jump_of_the_clock_that_is_accepted_misfiles_nothing_in_packet_mode",
    ),
    always(
        "30 years ahead, doubted until SIGHUP brings accept-clock",
        "clock::a_jump_of_the_clock_is_accepted_when_the_file_says_so",
    ),
    since(
        MULTI_BUFFER,
        "no programs for stamps of a card beside packets in several pieces",
        "a card without a clock leaves the stamps to the program",
        "card::a_card_without_a_clock_leaves_the_stamps_to_the_program",
    ),
    since(
        MULTI_BUFFER,
        "no programs for stamps of a card beside packets in several pieces",
        "stamps of a card are brought to the clock; what cannot be is not believed",
        "card::stamps_of_a_card_are_brought_to_the_clock_and_what_cannot_be_is_not_believed",
    ),
    since(
        MULTI_BUFFER,
        "no programs for stamps of a card beside packets in several pieces",
        "a program that asks the card is taken over",
        "card::a_program_that_asks_the_card_is_taken_over",
    ),
    quick(since(
        VIRTIO_ZERO_COPY,
        "no zero-copy in virtio-net",
        "virtio-net, several queues: zero-copy, numbered packets complete",
        "guest::zero_copy_stores_each_packet_once",
    )),
    quick(since(
        VIRTIO_ZERO_COPY,
        "no zero-copy in virtio-net",
        "zero-copy: empty fill ring accounted",
        "guest::zero_copy_with_an_empty_fill_ring_is_accounted",
    )),
    quick(since(
        VIRTIO_ZERO_COPY,
        "no zero-copy in virtio-net",
        "zero-copy: identity under overload",
        "guest::zero_copy_loses_by_the_book",
    )),
    quick(since(
        VIRTIO_ZERO_COPY,
        "no zero-copy in virtio-net",
        "zero-copy: what a filter leaves out is missing and counted, nothing else",
        "guest::zero_copy_leaves_out_by_the_filter",
    )),
    quick(since(
        VIRTIO_ZERO_COPY,
        "no zero-copy in virtio-net",
        "zero-copy: a killed recorder is taken over, in zero-copy again",
        "guest::a_killed_zero_copy_recorder_is_taken_over",
    )),
    before(
        VIRTIO_ZERO_COPY,
        "has zero-copy in virtio-net",
        "virtio-net: steps down from zero-copy to copy and says so",
        "guest::without_zero_copy_the_card_is_copied",
    ),
];

impl Check {
    /// True if it must hold on this kernel.
    pub(crate) fn is_for(&self, version: &Version) -> bool {
        (self.from..self.before).contains(&version.series())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_has_its_reason() {
        for check in CHECKS {
            let everywhere = check.from == (0, 0) && check.before == EVER;
            assert_eq!(everywhere, check.reason.is_empty(), "{}", check.claim);
        }
    }

    #[test]
    fn the_oldest_and_the_newest_kernel_differ_as_declared() {
        let tests = |name| -> Vec<&str> {
            let version = Version::named(name).unwrap();
            CHECKS.iter().filter(|check| check.is_for(&version)).map(|check| check.test).collect()
        };
        let (old, new) = (tests("6.1.0-50-cloud-amd64"), tests("7.3.4+deb13-cloud-amd64"));
        assert!(old.contains(&"guest::jumbo_packets_in_one_buffer_are_counted"));
        assert!(!old.iter().any(|test| test.contains("zero_copy_stores")));
        assert!(new.contains(&"guest::zero_copy_stores_each_packet_once"));
        assert!(!new.contains(&"guest::jumbo_packets_in_one_buffer_are_counted"));
    }
}
