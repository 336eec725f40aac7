/* SPDX-License-Identifier: (MIT OR GPL-2.0-only)
 *
 * The records that the XDP program and the recorder share. src/shared.rs mirrors them; both sides
 * assert every size. A change of any record here raises TD_LAYOUT.
 */
#ifndef TAPEDECK_SHARED_H
#define TAPEDECK_SHARED_H

#include <linux/types.h>

/* Version of every record in this file. */
#define TD_LAYOUT 4

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
/* The time is the card's, brought to CLOCK_MONOTONIC. */
#define TD_FLAG_CARD 4u
/* From this bit on: generation of the filter that let the packet through, modulo 256. */
#define TD_FLAG_FILTER_SHIFT 8

/* 32 bytes written before each packet that is redirected; 32 is the most older kernels take. */
struct td_meta {
	__u32 magic;
	__u16 flags;
	__u16 queue;
	__u64 sequence; /* per queue, counts the redirects that were tried */
	__u64 ktime_ns; /* CLOCK_MONOTONIC, when the program saw the packet or, with TD_FLAG_CARD, when the card did */
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

/* What happened to the packets of a queue. packets = filtered + slot_empty + failed +
 * refused[] + delivered. */
struct td_counts {
	__u64 packets;
	__u64 bytes;
	__u64 slot_empty; /* no socket in the XSKMAP slot, or no slot for this queue: passed on */
	__u64 failed;     /* the program could not write the metadata: passed on */
	__u64 refused[TD_REFUSALS];
	__u64 filtered; /* left out by the filter: passed on */
};

/* The counts of one UTC second on one CPU. Each other second takes the next slot, wherever the clock jumps: a slot
 * that is emptied holds what this CPU counted TD_SECONDS seconds with packets ago, never what is being counted. */
struct td_second {
	__u64 second;
	struct td_counts counts;
};

/* One row per queue and CPU. */
struct td_queue {
	__u32 second; /* of the packet this CPU is handling; the error program counts in the same one */
	__u32 slot;   /* where that second is counted */
	struct td_counts total;
	struct td_second seconds[TD_SECONDS];
};

/* What the recorder tells the programs. */
struct td_control {
	__u64 utc_offset_ns; /* UTC = CLOCK_MONOTONIC + this */
	__u32 xsks_id;       /* id of our XSKMAP: the error program looks at no other */
	__u32 layout;        /* TD_LAYOUT */
	__u32 card;          /* slot of the card's clock in use, plus 1; 0 = the card is not asked */
	__u32 unused;
};

/* A card's stamp is believed if it lies between this long before the program's look at the packet ... */
#define TD_CARD_BEHIND_NS 50000000ull
/* ... and this long behind it: what a sample of the card's clock may be wrong. */
#define TD_CARD_AHEAD_NS 20000ull
/* A sample that is older says nothing any more. */
#define TD_CARD_FRESH_NS 5000000000ull
/* Slots: one is in use while the other is written. */
#define TD_CARD_SLOTS 2

/* The clock of the card at one moment, and how it runs. */
struct td_card {
	__u64 card_ns;
	__u64 ktime_ns; /* CLOCK_MONOTONIC at that moment */
	__s64 rate;     /* 2^-30 ns that CLOCK_MONOTONIC gains on each ns of the card */
};

/* Who stamped the packets of an interface. */
struct td_card_counts {
	__u64 stamped; /* the card */
	__u64 absent;  /* the program: the card gave no stamp, or its clock is not known */
	__u64 refused; /* the program: the card's stamp cannot be */
};

/* A filter is compiled to at most 64 clauses, each a bit. A clause is a conjunction of questions: does an
 * address lie in net a, in net b, is there tag a, tag b, is it this protocol, is a port among these. Each
 * table says for a value the clauses whose question it answers with yes; any_* are the clauses that do
 * not ask. There are two slots of everything: the one that generation & 1 names is in use. */
#define TD_FILTER_SLOTS 2
/* Networks of each IP version in a slot. */
#define TD_FILTER_NETS 8192
/* Bytes of a packet the filter looks at. What it would have to look at behind them is unknown to it. */
#define TD_FILTER_WINDOW 256

/* Clauses by two questions. */
struct td_pair {
	__u64 a;
	__u64 b;
};

/* The heads of a filter's slot. keep | skip = 0: takes everything. */
struct td_filter {
	__u64 keep; /* clauses that keep; none = keep all */
	__u64 skip; /* clauses that leave out, also what a clause keeps */
	struct td_pair any_net;
	struct td_pair any_vlan;
	__u64 any_proto;
	__u64 any_port;
};

/* Keys of the networks: bits of the prefix including the 32 of the slot, slot, address. */
struct td_net4 {
	__u32 bits;
	__u32 slot;
	__u8 address[4];
};

struct td_net6 {
	__u32 bits;
	__u32 slot;
	__u8 address[16];
};

_Static_assert(sizeof(struct td_meta) == 32, "td_meta");
_Static_assert(sizeof(struct td_counts) == 88, "td_counts");
_Static_assert(sizeof(struct td_second) == 96, "td_second");
_Static_assert(sizeof(struct td_queue) == 8 + 88 + 64 * 96, "td_queue");
_Static_assert(sizeof(struct td_control) == 24, "td_control");
_Static_assert(sizeof(struct td_card) == 24, "td_card");
_Static_assert(sizeof(struct td_card_counts) == 24, "td_card_counts");
_Static_assert(sizeof(struct td_filter) == 64, "td_filter");
_Static_assert(sizeof(struct td_net4) == 12, "td_net4");
_Static_assert(sizeof(struct td_net6) == 24, "td_net6");

#endif
