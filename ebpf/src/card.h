/* SPDX-License-Identifier: (MIT OR GPL-2.0-only)
 *
 * When the card saw a packet. Its clock runs as it likes: the recorder samples it beside CLOCK_MONOTONIC, and here
 * a stamp is brought to that clock. One that cannot be is counted and not used.
 */
#ifndef TAPEDECK_CARD_H
#define TAPEDECK_CARD_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "shared.h"

/* The driver's answer (Documentation/networking/xdp-rx-metadata.rst). */
extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *timestamp) __ksym;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TD_CARD_SLOTS);
	__type(key, __u32);
	__type(value, struct td_card);
} cards SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct td_card_counts);
} card_counts SEC(".maps");

/* Set before the load: the card's stamp stands in the packet, behind its link header. For drivers without a clock. */
const volatile __u32 card_in_packet = 0;

#define TD_LINK_HEADER 14

static __always_inline int card_says(struct xdp_md *ctx, __u64 *card_ns)
{
	void *data, *data_end;

	if (!card_in_packet)
		return bpf_xdp_metadata_rx_timestamp(ctx, card_ns);
	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	if (data + TD_LINK_HEADER + sizeof(*card_ns) > data_end)
		return -1;
	__builtin_memcpy(card_ns, data + TD_LINK_HEADER, sizeof(*card_ns));
	return 0;
}

static __always_inline int far_apart(__u64 a, __u64 b)
{
	return (a > b ? a - b : b - a) > TD_CARD_FRESH_NS;
}

/* Replaces `now` by the time of the card and returns TD_FLAG_CARD, if the card says one that can be. */
static __always_inline __u16 card_time(struct xdp_md *ctx, const struct td_control *told, __u64 *now)
{
	__u32 zero = 0, slot = told->card;
	struct td_card_counts *counts = bpf_map_lookup_elem(&card_counts, &zero);
	struct td_card *card;
	__u64 card_ns = 0, time;
	__s64 since;

	if (!counts || !slot)
		goto absent;
	slot--;
	card = bpf_map_lookup_elem(&cards, &slot);
	/* A driver without a clock answers 0. */
	if (!card || card_says(ctx, &card_ns) || !card_ns)
		goto absent;
	if (far_apart(*now, card->ktime_ns))
		goto absent;
	if (far_apart(card_ns, card->card_ns))
		goto refused;
	since = card_ns - card->card_ns;
	/* A rate is below 2^20, so the product stays below 2^53. */
	time = card->ktime_ns + since + ((since * card->rate) >> 30);
	if (time > *now + TD_CARD_AHEAD_NS || time + TD_CARD_BEHIND_NS < *now)
		goto refused;
	counts->stamped++;
	*now = time;
	return TD_FLAG_CARD;
refused:
	counts->refused++;
	return 0;
absent:
	if (counts)
		counts->absent++;
	return 0;
}

#endif
