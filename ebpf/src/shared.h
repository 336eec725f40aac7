/* SPDX-License-Identifier: (MIT OR GPL-2.0-only)
 *
 * The records that the XDP program and the recorder share. src/shared.rs mirrors them; both sides
 * assert every size. A change of any record here raises TD_LAYOUT.
 */
#ifndef TAPEDECK_SHARED_H
#define TAPEDECK_SHARED_H

#include <linux/types.h>

/* Version of every record in this file. */
#define TD_LAYOUT 1

/* Queues with a counter row and an XSKMAP slot. Row TD_QUEUES counts whatever lies beyond. */
#define TD_QUEUES 64

/* Seconds a counter row remembers, one slot each; a reader must come by more often than that. */
#define TD_SECONDS 64

/* First word of the metadata: "TDP1" as a little-endian number. */
#define TD_MAGIC 0x31504454u

/* The metadata lies before the packet, in the XDP metadata area. */
#define TD_FLAG_META 1u
/* The driver refused the metadata area: the metadata was put in front of the packet's bytes, and
 * the descriptor's length contains it. */
#define TD_FLAG_HEAD 2u

/* 32 bytes written before each packet that is redirected; 32 is the most older kernels take. */
struct td_meta {
	__u32 magic;
	__u16 flags;
	__u16 queue;
	__u64 sequence; /* per queue, counts the redirects that were tried */
	__u64 ktime_ns; /* CLOCK_MONOTONIC */
	__u32 second;   /* UTC second this packet is counted in */
	__u32 length;   /* bytes on the wire, without this record */
};

/* Why the kernel refused a redirect, by its errno. */
enum td_refusal {
	TD_RING_FULL,   /* ENOBUFS */
	TD_FILL_EMPTY,  /* ENOMEM */
	TD_OVERSIZE,    /* ENOSPC */
	TD_UNBOUND,     /* ENXIO */
	TD_WRONG_QUEUE, /* EINVAL */
	TD_OTHER,       /* any other errno */
	TD_REFUSALS,
};

/* What happened to the packets of a queue. packets = slot_empty + failed + refused[] + delivered. */
struct td_counts {
	__u64 packets;
	__u64 bytes;
	__u64 slot_empty; /* no socket in the XSKMAP slot, or no slot for this queue: passed on */
	__u64 failed;     /* the program could not write the metadata: passed on */
	__u64 refused[TD_REFUSALS];
};

/* The counts of one UTC second. The slot is second % TD_SECONDS. */
struct td_second {
	__u64 second;
	struct td_counts counts;
};

/* One row per queue and CPU. */
struct td_queue {
	__u64 second; /* of the packet this CPU is handling; the error program counts in the same one */
	struct td_counts total;
	struct td_second seconds[TD_SECONDS];
};

/* What the recorder tells the programs. */
struct td_control {
	__u64 utc_offset_ns; /* UTC = CLOCK_MONOTONIC + this */
	__u32 xsks_id;       /* id of our XSKMAP: the error program looks at no other */
	__u32 layout;        /* TD_LAYOUT */
};

_Static_assert(sizeof(struct td_meta) == 32, "td_meta");
_Static_assert(sizeof(struct td_counts) == 80, "td_counts");
_Static_assert(sizeof(struct td_second) == 88, "td_second");
_Static_assert(sizeof(struct td_queue) == 8 + 80 + 64 * 88, "td_queue");
_Static_assert(sizeof(struct td_control) == 16, "td_control");

#endif
