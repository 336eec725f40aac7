// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * The XDP half of the recorder: count, stamp, steer.
 *
 * Every packet is counted before anything else is done with it. One that has a socket in its
 * queue's XSKMAP slot gets 32 bytes of metadata and is redirected there; every other one is counted
 * with its reason and passed on to the network stack unchanged. The second program sits on the
 * kernel's tracepoint for failed redirects and says why a redirected packet did not arrive.
 *
 * It must never drop a packet by itself, and never leave one uncounted.
 */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <bpf/bpf_helpers.h>
#include "shared.h"

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

/* The row of a queue on this CPU. */
static __always_inline struct td_queue *row_of(__u32 queue)
{
	__u32 key = queue < TD_QUEUES ? queue : TD_QUEUES;

	return bpf_map_lookup_elem(&queues, &key);
}

/* The slot of the second this CPU is counting in, emptied when it still holds an older one. */
static __always_inline struct td_counts *slot_of(struct td_queue *row)
{
	struct td_second *slot = &row->seconds[row->second % TD_SECONDS];

	if (slot->second != row->second) {
		__builtin_memset(&slot->counts, 0, sizeof(slot->counts));
		slot->second = row->second;
	}
	return &slot->counts;
}

/* Makes room for the metadata in front of the packet. Returns TD_FLAG_META, TD_FLAG_HEAD or 0. */
static __always_inline __u32 make_room(struct xdp_md *ctx)
{
	const int size = sizeof(struct td_meta);
	void *meta, *data;

	if (bpf_xdp_adjust_meta(ctx, -size) == 0) {
		meta = (void *)(long)ctx->data_meta;
		data = (void *)(long)ctx->data;
		/* A program before ours may have left metadata of its own behind. */
		if (meta + size == data)
			return TD_FLAG_META;
		return 0;
	}
	if (bpf_xdp_adjust_head(ctx, -size) == 0)
		return TD_FLAG_HEAD;
	return 0;
}

SEC("xdp.frags")
int tapedeck_rx(struct xdp_md *ctx)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 length = bpf_xdp_get_buff_len(ctx);
	__u32 queue = ctx->rx_queue_index;
	__u32 zero = 0, room;
	struct td_control *told = bpf_map_lookup_elem(&control, &zero);
	struct td_queue *row = row_of(queue);
	struct td_counts *slot;
	struct td_meta *meta;
	__u64 *sequence;

	/* Array lookups with a key in range do not fail; the verifier wants to see it asked. */
	if (!told || !row)
		return XDP_PASS;
	row->second = (now + told->utc_offset_ns) / NANOS_PER_SEC;
	slot = slot_of(row);
	row->total.packets++;
	row->total.bytes += length;
	slot->packets++;
	slot->bytes += length;

	sequence = bpf_map_lookup_elem(&sequences, &queue);
	if (!sequence || !bpf_map_lookup_elem(&xsks, &queue))
		goto slot_empty;

	room = make_room(ctx);
	if (!room)
		goto failed;
	meta = (void *)(long)(room == TD_FLAG_META ? ctx->data_meta : ctx->data);
	if ((void *)(meta + 1) > (void *)(long)(room == TD_FLAG_META ? ctx->data : ctx->data_end))
		goto failed;
	meta->magic = TD_MAGIC;
	meta->flags = room;
	meta->queue = queue;
	meta->sequence = __sync_fetch_and_add(sequence, 1);
	meta->ktime_ns = now;
	meta->second = row->second;
	meta->length = length;

	if (bpf_redirect_map(&xsks, queue, XDP_PASS) == XDP_REDIRECT)
		return XDP_REDIRECT;
	/* The socket left between the two looks at the slot. */
	if (room == TD_FLAG_HEAD && bpf_xdp_adjust_head(ctx, sizeof(*meta)) != 0)
		goto failed;
slot_empty:
	row->total.slot_empty++;
	slot->slot_empty++;
	return XDP_PASS;
failed:
	row->total.failed++;
	slot->failed++;
	return XDP_PASS;
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
