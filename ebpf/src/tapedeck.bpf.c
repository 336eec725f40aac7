// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * The XDP half of the recorder: count, stamp, steer.
 *
 * Every packet is counted before anything else is done with it. One that the filter leaves out is
 * counted as such and passed on. One that has a socket in its queue's XSKMAP slot gets 32 bytes of
 * metadata and is redirected there; every other one is counted with its reason and passed on to the
 * network stack unchanged. The second program sits on the kernel's tracepoint for failed redirects
 * and says why a redirected packet did not arrive.
 *
 * It must never drop a packet by itself, and never leave one uncounted.
 *
 * Built twice: with TD_CARD it asks the card when it saw the packet, which the kernel allows to programs that
 * are bound to one interface only.
 */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <bpf/bpf_helpers.h>
#include "shared.h"
#include "filter.h"
#ifdef TD_CARD
#include "card.h"
#endif

#define NANOS_PER_SEC 1000000000ull

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, TD_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TD_QUEUES + 1);
	__type(key, __u32);
	__type(value, struct td_queue);
} queues SEC(".maps");

/* Next sequence number per queue. Shared by all CPUs: in generic mode several may serve a queue. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TD_QUEUES);
	__type(key, __u32);
	__type(value, __u64);
} sequences SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct td_control);
} control SEC(".maps");

/* Set before the load: put the metadata in front although the driver has an area for it. */
const volatile __u32 in_front_only = 0;

/* Set before the load: this kernel refuses to redirect a packet in several pieces to a socket, and tells
 * nobody (before Linux 6.6; xdp_do_redirect in net/core/filter.c). */
const volatile __u32 one_piece_only = 0;

/* The row of a queue on this CPU. */
static __always_inline struct td_queue *row_of(__u32 queue)
{
	__u32 key = queue < TD_QUEUES ? queue : TD_QUEUES;

	return bpf_map_lookup_elem(&queues, &key);
}

/* Where this CPU counts the running second. */
static __always_inline struct td_counts *slot_of(struct td_queue *row)
{
	return &row->seconds[row->slot % TD_SECONDS].counts;
}

/* The second that a packet of this time counts in. Stamps of the card and of the program take turns: one that lies
 * before the last by less than a second must not take the running second's slot away. */
static __always_inline __u32 second_of(const struct td_queue *row, __u64 utc_ns)
{
	__u32 second = utc_ns / NANOS_PER_SEC;

#ifdef TD_CARD
	if (second + 1 == row->second)
		return row->second;
#else
	(void)row;
#endif
	return second;
}

/* A packet of this second comes: if it is another one than before, it takes the next slot. */
static __always_inline void enter(struct td_queue *row, __u32 second)
{
	struct td_second *slot;

	if (row->second == second)
		return;
	row->second = second;
	row->slot = (row->slot + 1) % TD_SECONDS;
	slot = &row->seconds[row->slot % TD_SECONDS];
	__builtin_memset(&slot->counts, 0, sizeof(slot->counts));
	slot->second = second;
}

/* What the metadata says of the packet being handled. */
struct stamp {
	__u64 *sequence;
	__u64 ktime_ns;
	__u64 second;
	__u32 length;
	__u32 queue;
	__u32 generation;
};

/* Writes the metadata to `at`, if it fits before `end`. */
static __always_inline int write_meta(void *at, void *end, __u16 flags, const struct stamp *stamp)
{
	struct td_meta *meta = at;

	if ((void *)(meta + 1) > end)
		return 0;
	meta->magic = TD_MAGIC;
	meta->flags = flags | (__u16)(stamp->generation << TD_FLAG_FILTER_SHIFT);
	meta->queue = stamp->queue;
	meta->sequence = __sync_fetch_and_add(stamp->sequence, 1);
	meta->ktime_ns = stamp->ktime_ns;
	meta->second = stamp->second;
	meta->length = stamp->length;
	return 1;
}

/* True if the packet goes on beyond its first piece. No subtraction of pointers: that needs CAP_PERFMON. */
static __always_inline int in_pieces(struct xdp_md *ctx, __u64 length)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;

	if (length > 0xffff)
		return 1;
	/* Bounded where it is used: old verifiers forget a comparison when the number has been in memory. */
	asm volatile("" : "+r"(length));
	return data + (length & 0xffff) > data_end;
}

/* The loads of the packet's bounds stay where they are written: clang would otherwise fold those of
 * two branches into one with a computed offset, which the verifier refuses. */
#define KEEP_APART() asm volatile("" ::: "memory")

/* Counts a packet that is passed on, in total and in its second. */
static __always_inline int pass_on(__u64 *total, __u64 *second)
{
	(*total)++;
	(*second)++;
	return XDP_PASS;
}

SEC("xdp.frags")
int tapedeck_rx(struct xdp_md *ctx)
{
	const int size = sizeof(struct td_meta);
	__u64 now = bpf_ktime_get_ns();
	__u64 length = bpf_xdp_get_buff_len(ctx);
	__u32 queue = ctx->rx_queue_index;
	__u32 zero = 0;
	struct td_control *told = bpf_map_lookup_elem(&control, &zero);
	struct td_queue *row = row_of(queue);
	struct td_counts *slot;
	struct stamp stamp = {};
	int in_front = 0;
	__u16 whose = 0;

	/* Array lookups with a key in range do not fail; the verifier wants to see it asked. */
	if (!told || !row)
		return XDP_PASS;
#ifdef TD_CARD
	whose = card_time(ctx, told, &now);
#endif
	enter(row, second_of(row, now + told->utc_offset_ns));
	slot = slot_of(row);
	row->total.packets++;
	row->total.bytes += length;
	slot->packets++;
	slot->bytes += length;

	stamp.generation = filter_generation();
	if (stamp.generation && filter_leaves_out(ctx, stamp.generation))
		return pass_on(&row->total.filtered, &slot->filtered);
	stamp.sequence = bpf_map_lookup_elem(&sequences, &queue);
	if (!stamp.sequence || !bpf_map_lookup_elem(&xsks, &queue))
		goto slot_empty;
	if (one_piece_only && in_pieces(ctx, length))
		return pass_on(&row->total.refused[TD_OVERSIZE], &slot->refused[TD_OVERSIZE]);
	stamp.ktime_ns = now;
	stamp.second = row->second;
	stamp.length = length;
	stamp.queue = queue;

	if (!in_front_only && bpf_xdp_adjust_meta(ctx, -size) == 0) {
		void *data_meta = (void *)(long)ctx->data_meta;
		void *data = (void *)(long)ctx->data;

		if (!write_meta(data_meta, data, TD_FLAG_META | whose, &stamp))
			goto failed;
	} else if (bpf_xdp_adjust_head(ctx, -size) == 0) {
		KEEP_APART();
		void *data = (void *)(long)ctx->data;
		void *data_end = (void *)(long)ctx->data_end;

		in_front = 1;
		if (!write_meta(data, data_end, TD_FLAG_HEAD | whose, &stamp))
			goto failed;
	} else {
		goto failed;
	}

	if (bpf_redirect_map(&xsks, queue, XDP_PASS) == XDP_REDIRECT)
		return XDP_REDIRECT;
	/* The socket left between the two looks at the slot: pass the packet on as it came. */
	if (in_front && bpf_xdp_adjust_head(ctx, size) != 0)
		goto failed;
slot_empty:
	return pass_on(&row->total.slot_empty, &slot->slot_empty);
failed:
	return pass_on(&row->total.failed, &slot->failed);
}

static __always_inline __u32 refusal_of(int err)
{
	switch (err) {
	case -ENOBUFS:
		return TD_RING_FULL;
	case -ENOMEM:
		return TD_FILL_EMPTY;
	case -ENOSPC:
		return TD_OVERSIZE;
	case -ENXIO:
		return TD_UNBOUND;
	case -EINVAL:
		return TD_WRONG_QUEUE;
	default:
		return TD_OTHER;
	}
}

/*
 * Arguments of the tracepoint since Linux 5.12 (include/trace/events/xdp.h, xdp_redirect_err):
 * dev, prog, target, err, map_type, map_id, index. It fires on the CPU that ran tapedeck_rx,
 * before that CPU takes its next packet, so the row still names that packet's second.
 */
SEC("tp_btf/xdp_redirect_err")
int tapedeck_redirect_err(__u64 *ctx)
{
	int err = (int)ctx[3];
	__u32 map_id = (__u32)ctx[5];
	__u32 index = (__u32)ctx[6];
	__u32 zero = 0, refusal;
	struct td_control *told = bpf_map_lookup_elem(&control, &zero);
	struct td_queue *row;
	struct td_counts *slot;

	if (!told || map_id != told->xsks_id)
		return 0;
	row = row_of(index);
	if (!row)
		return 0;
	slot = slot_of(row);
	refusal = refusal_of(err);
	if (refusal >= TD_REFUSALS)
		return 0;
	row->total.refused[refusal]++;
	slot->refused[refusal]++;
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
