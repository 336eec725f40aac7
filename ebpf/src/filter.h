/* SPDX-License-Identifier: (MIT OR GPL-2.0-only)
 *
 * The filter of the XDP program: which packets are left out. What it decides is what src/filter.rs
 * decides; a test asks both about the same packets.
 *
 * The first bytes of a packet are copied to where any offset may be read, and walked like
 * src/filter/heads.rs does. What cannot be known (a header behind those bytes, the ports of a later
 * fragment) counts as a yes to what would keep the packet and as a no to what would leave it out:
 * in doubt a packet is recorded.
 */
#ifndef TAPEDECK_FILTER_H
#define TAPEDECK_FILTER_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "shared.h"

/* Room behind the window, so that a read that begins in it needs no other check. */
#define WINDOW_SLACK 64

#define TYPE_IPV4 0x0800
#define TYPE_ARP 0x0806
#define TYPE_RARP 0x8035
#define TYPE_VLAN 0x8100
#define TYPE_IPV6 0x86dd
#define TYPE_MPLS 0x8847
#define TYPE_MPLS_UPSTREAM 0x8848
#define TYPE_PPPOE 0x8864
#define TYPE_SERVICE_VLAN 0x88a8
#define TYPE_MACSEC 0x88e5
#define TYPE_FABRIC_PATH 0x8903
#define TYPE_CISCO_METADATA 0x8909
#define TYPE_OLD_QINQ 0x9100
#define LENGTH_MAX 1500

/* Tags and labels walked, IPv6 extension headers, authentication headers of IPv4. */
#define TAGS_MAX 8
#define EXTENSIONS_MAX 8
#define AUTHENTICATIONS_MAX 4

/* What is not known of a packet. */
#define UNKNOWN_VLAN 1u
#define UNKNOWN_NET 2u
#define UNKNOWN_PROTO 4u
#define UNKNOWN_PORT 8u

/* What comes behind the link header. */
enum next {
	NEXT_NOTHING, /* nothing a filter can ask for */
	NEXT_UNKNOWN,
	NEXT_ARP,
	NEXT_IPV4,
	NEXT_IPV6,
	NEXT_TAG, /* there is more of the link header */
};

/* The beginning of a packet, and what was found in it. */
struct window {
	__u8 bytes[TD_FILTER_WINDOW + WINDOW_SLACK];
	__u32 end; /* bytes of the packet that lie here */
	__u32 slot;
	__u32 at; /* where the next header begins */
	__u32 type;  /* EtherType or protocol of the next header */
	__u32 later; /* it is a later fragment */
	__u32 unknown;
	__u32 offset; /* see hidden() */
	struct td_pair net;
	struct td_pair vlan;
	__u64 proto;
	__u64 port;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct window);
} filter_window SEC(".maps");

/* Generation of the filter in use; 0 = there was never one. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} filter_use SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TD_FILTER_SLOTS);
	__type(key, __u32);
	__type(value, struct td_filter);
} filter_heads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, TD_FILTER_SLOTS * TD_FILTER_NETS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct td_net4);
	__type(value, struct td_pair);
} filter_nets4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, TD_FILTER_SLOTS * TD_FILTER_NETS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct td_net6);
	__type(value, struct td_pair);
} filter_nets6 SEC(".maps");

/* By slot, then tag. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TD_FILTER_SLOTS * 4096);
	__type(key, __u32);
	__type(value, struct td_pair);
} filter_vlans SEC(".maps");

/* By slot, then port. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TD_FILTER_SLOTS * 65536);
	__type(key, __u32);
	__type(value, __u64);
} filter_ports SEC(".maps");

/* By slot, then IP version (0: IPv4, 1: IPv6), then protocol. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TD_FILTER_SLOTS * 512);
	__type(key, __u32);
	__type(value, __u64);
} filter_protos SEC(".maps");

/* Never read. The kernel answers an update of a map of maps only when no program runs any more that began
 * before it (maybe_wait_bpf_programs in kernel/bpf/syscall.c): afterwards no CPU reads the former slot. */
struct fence_inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} filter_fence_inner SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct fence_inner);
} filter_fence SEC(".maps") = {
	.values = { [0] = &filter_fence_inner },
};

static __always_inline __u32 filter_generation(void)
{
	__u32 zero = 0;
	__u32 *use = bpf_map_lookup_elem(&filter_use, &zero);

	return use ? *(volatile __u32 *)use : 0;
}

/* Each function looks the window up for itself: one that is handed over as an argument may not be read at any
 * offset without CAP_PERFMON. */
static __always_inline struct window *the_window(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&filter_window, &zero);
}

/* An offset that the verifier takes for any number of the window: what it reads from a map is unknown to it.
 * Without CAP_PERFMON it wants an addition to a pointer to be of one kind on all ways that lead there, but in
 * a loop it would know the offset on some. */
static __always_inline __u32 hidden(struct window *w, __u32 at)
{
	*(volatile __u32 *)&w->offset = at;
	return *(volatile __u32 *)&w->offset & (TD_FILTER_WINDOW - 1);
}

/* Whoever asks has made sure with has() that the bytes are there. */
static __always_inline __u32 byte_at(struct window *w, __u32 at)
{
	return w->bytes[hidden(w, at)];
}

static __always_inline __u32 half_at(struct window *w, __u32 at)
{
	at = hidden(w, at);
	return (__u32)w->bytes[at] << 8 | w->bytes[at + 1];
}

static __always_inline int has(const struct window *w, __u32 at, __u32 bytes)
{
	return at + bytes <= w->end;
}

static __always_inline void ask_vlan(struct window *w, __u32 tag)
{
	__u32 key = (w->slot & 1) * 4096 + (tag & 0xfff);
	struct td_pair *pair = bpf_map_lookup_elem(&filter_vlans, &key);

	if (pair) {
		w->vlan.a |= pair->a;
		w->vlan.b |= pair->b;
	}
}

/* The headers are walked step by step, each step in a function that is not static: the verifier looks at such a
 * function once and not once for each way that leads there, of which there would be too many. */

/* Asks for the address at an offset of the window. */
__noinline int filter_net4(__u32 at)
{
	struct td_net4 key = { .bits = 64 };
	struct window *w = the_window();
	struct td_pair *pair;

	if (!w)
		return 0;
	key.slot = w->slot;
	at = hidden(w, at);
	__builtin_memcpy(key.address, &w->bytes[at], sizeof(key.address));
	pair = bpf_map_lookup_elem(&filter_nets4, &key);
	if (pair) {
		w->net.a |= pair->a;
		w->net.b |= pair->b;
	}
	return 0;
}

__noinline int filter_net6(__u32 at)
{
	struct td_net6 key = { .bits = 160 };
	struct window *w = the_window();
	struct td_pair *pair;

	if (!w)
		return 0;
	key.slot = w->slot;
	at = hidden(w, at);
	__builtin_memcpy(key.address, &w->bytes[at], sizeof(key.address));
	pair = bpf_map_lookup_elem(&filter_nets6, &key);
	if (pair) {
		w->net.a |= pair->a;
		w->net.b |= pair->b;
	}
	return 0;
}

static __always_inline void ask_proto(struct window *w, __u32 six, __u32 proto)
{
	__u32 key = (w->slot & 1) * 512 + six * 256 + (proto & 0xff);
	__u64 *clauses = bpf_map_lookup_elem(&filter_protos, &key);

	if (clauses)
		w->proto |= *clauses;
}

static __always_inline void ask_port(struct window *w, __u32 port)
{
	__u32 key = (w->slot & 1) * 65536 + (port & 0xffff);
	__u64 *clauses = bpf_map_lookup_elem(&filter_ports, &key);

	if (clauses)
		w->port |= *clauses;
}

static __always_inline int is_vlan(__u32 type)
{
	return type == TYPE_VLAN || type == TYPE_SERVICE_VLAN || type == TYPE_OLD_QINQ;
}

static __always_inline int is_mpls(__u32 type)
{
	return type == TYPE_MPLS || type == TYPE_MPLS_UPSTREAM;
}

/* Steps over one tag, label or PPPoE header of type w->type at w->at, if there is one. */
__noinline int filter_step(void)
{
	struct window *w = the_window();
	__u32 at, type;

	if (!w)
		return NEXT_UNKNOWN;
	at = w->at;
	type = w->type;
	if (type == TYPE_IPV4)
		return NEXT_IPV4;
	if (type == TYPE_IPV6)
		return NEXT_IPV6;
	if (type == TYPE_ARP || type == TYPE_RARP)
		return NEXT_ARP;
	if (is_vlan(type)) {
		if (!has(w, at, 4))
			return NEXT_UNKNOWN;
		ask_vlan(w, half_at(w, at));
		w->type = half_at(w, at + 2);
		w->at = at + 4;
		return NEXT_TAG;
	}
	if (is_mpls(type)) {
		__u32 version;

		if (!has(w, at, 5))
			return NEXT_UNKNOWN;
		w->at = at + 4;
		if (!(byte_at(w, at + 2) & 1))
			return NEXT_TAG;
		version = byte_at(w, at + 4) >> 4;
		if (version != 4 && version != 6)
			return NEXT_NOTHING;
		w->type = version == 4 ? TYPE_IPV4 : TYPE_IPV6;
		return NEXT_TAG;
	}
	if (type == TYPE_PPPOE) {
		__u32 protocol, bytes = 7;

		if (!has(w, at, 8))
			return NEXT_UNKNOWN;
		protocol = byte_at(w, at + 6);
		if (!(protocol & 1)) {
			protocol = half_at(w, at + 6);
			bytes = 8;
		}
		if (protocol == 0x0021)
			w->type = TYPE_IPV4;
		else if (protocol == 0x0057)
			w->type = TYPE_IPV6;
		else if (protocol == 0x0281 || protocol == 0x0283)
			w->type = TYPE_MPLS;
		else
			return NEXT_NOTHING;
		w->at = at + bytes;
		return NEXT_TAG;
	}
	if (type == TYPE_MACSEC || type == TYPE_FABRIC_PATH || type == TYPE_CISCO_METADATA)
		return NEXT_UNKNOWN;
	if (type > LENGTH_MAX)
		return NEXT_NOTHING;
	/* LLC; with SNAP an EtherType follows. */
	if (!has(w, at, 8) || half_at(w, at) != 0xaaaa || half_at(w, at + 2) != 0x0300 ||
	    (half_at(w, at + 4) != 0 && half_at(w, at + 4) != 0x00f8))
		return NEXT_NOTHING;
	w->type = half_at(w, at + 6);
	w->at = at + 8;
	return w->type <= LENGTH_MAX ? NEXT_NOTHING : NEXT_TAG;
}

/* Walks the link header. Returns an enum next, and leaves its place in w->at. */
static __always_inline int walk_link(struct window *w)
{
	__u32 i;

	if (!has(w, 0, 14))
		return NEXT_UNKNOWN;
	w->at = 14;
	w->type = half_at(w, 12);
	for (i = 0; i < TAGS_MAX; i++) {
		int next = filter_step();

		if (next != NEXT_TAG)
			return next;
	}
	return NEXT_UNKNOWN;
}

static __always_inline int has_ports(__u32 proto)
{
	return proto == 6 || proto == 17 || proto == 33 || proto == 132 || proto == 136;
}

/* Protocol w->type and its ports, at w->at, at the end of an IP header's chain. */
__noinline int filter_transport(__u32 six, __u32 reachable)
{
	struct window *w = the_window();
	__u32 at, proto;

	if (!w)
		return 0;
	at = w->at;
	proto = w->type & 0xff;
	ask_proto(w, six & 1, proto);
	if (!has_ports(proto))
		return 0;
	if (!reachable || !has(w, at, 4)) {
		w->unknown |= UNKNOWN_PORT;
		return 0;
	}
	ask_port(w, half_at(w, at));
	ask_port(w, half_at(w, at + 2));
	return 0;
}

#define PROTO_FRAGMENT 44
#define PROTO_AUTHENTICATION 51
#define PROTO_NONE 59
/* On top of a protocol: it looks like an extension header, but is the content. */
#define NO_MORE 0x100

/* Steps over one authentication header at w->at. Returns 0 where there is none. */
__noinline int filter_authentication(void)
{
	struct window *w = the_window();
	__u32 at;

	if (!w)
		return 0;
	at = w->at;
	if (w->type != PROTO_AUTHENTICATION || !has(w, at, 2))
		return 0;
	w->type = byte_at(w, at);
	w->at = at + (byte_at(w, at + 1) + 2) * 4;
	return 1;
}

/* RFC 791. */
__noinline int filter_walk_ipv4(void)
{
	struct window *w = the_window();
	__u32 at, words, reachable, i;

	if (!w)
		return 0;
	at = w->at;
	if (!has(w, at, 20)) {
		w->unknown |= UNKNOWN_NET | UNKNOWN_PROTO | UNKNOWN_PORT;
		return 0;
	}
	if (byte_at(w, at) >> 4 != 4)
		return 0;
	filter_net4(at + 12);
	filter_net4(at + 16);
	words = byte_at(w, at) & 0x0f;
	reachable = !(half_at(w, at + 6) & 0x1fff) && words >= 5;
	w->type = byte_at(w, at + 9);
	w->at = at + (words < 5 ? 20 : words * 4);
	if (reachable)
		for (i = 0; i < AUTHENTICATIONS_MAX; i++)
			if (!filter_authentication())
				break;
	if (w->type == PROTO_AUTHENTICATION) {
		w->unknown |= UNKNOWN_PROTO | UNKNOWN_PORT;
		return 0;
	}
	return filter_transport(0, reachable);
}

static __always_inline int is_message(__u32 proto)
{
	return proto == 135 || proto == 139 || proto == 140;
}

static __always_inline int is_extension(__u32 proto)
{
	return proto == 0 || proto == 43 || proto == PROTO_FRAGMENT || proto == PROTO_AUTHENTICATION ||
	       proto == 60 || is_message(proto);
}

/* Steps over one extension header (RFC 8200) of protocol w->type at w->at. Returns 0 where the chain ends. */
__noinline int filter_extension(void)
{
	struct window *w = the_window();
	__u32 at, proto, next, bytes;

	if (!w)
		return 0;
	at = w->at;
	proto = w->type;
	if (!is_extension(proto) || w->later || !has(w, at, 8))
		return 0;
	next = byte_at(w, at);
	/* A message ends the chain: it is the content itself. */
	if (is_message(proto) && next == PROTO_NONE) {
		w->type = NO_MORE | proto;
		return 0;
	}
	bytes = (byte_at(w, at + 1) + 1) * 8;
	if (proto == PROTO_FRAGMENT) {
		w->later = half_at(w, at + 2) & 0xfff8;
		bytes = 8;
	} else if (proto == PROTO_AUTHENTICATION) {
		bytes = (byte_at(w, at + 1) + 2) * 4;
	}
	w->type = next;
	w->at = at + bytes;
	return 1;
}

__noinline int filter_walk_ipv6(void)
{
	struct window *w = the_window();
	__u32 at, i;

	if (!w)
		return 0;
	at = w->at;
	if (!has(w, at, 40)) {
		w->unknown |= UNKNOWN_NET | UNKNOWN_PROTO | UNKNOWN_PORT;
		return 0;
	}
	if (byte_at(w, at) >> 4 != 6)
		return 0;
	filter_net6(at + 8);
	filter_net6(at + 24);
	w->type = byte_at(w, at + 6);
	w->at = at + 40;
	for (i = 0; i < EXTENSIONS_MAX; i++)
		if (!filter_extension())
			break;
	if (is_extension(w->type)) {
		w->unknown |= UNKNOWN_PROTO | UNKNOWN_PORT;
		return 0;
	}
	return filter_transport(1, !w->later);
}

/* RFC 826, for IPv4 over 48-bit addresses. */
static __always_inline void walk_arp(struct window *w)
{
	__u32 at = w->at;

	if (!has(w, at, 28)) {
		w->unknown |= UNKNOWN_NET;
		return;
	}
	if (half_at(w, at + 2) != 0x0800 || half_at(w, at + 4) != 0x0604)
		return;
	filter_net4(at + 14);
	filter_net4(at + 24);
}

/* Whether the filter of this slot leaves the packet in the window out. */
__noinline int filter_judge(void)
{
	struct window *w = the_window();
	struct td_filter *heads;
	struct td_pair net, vlan;
	__u64 proto, port, hit;
	__u32 slot, next;

	if (!w)
		return 0;
	slot = w->slot & 1;
	heads = bpf_map_lookup_elem(&filter_heads, &slot);
	if (!heads)
		return 0;
	next = walk_link(w);
	if (next == NEXT_UNKNOWN)
		w->unknown = UNKNOWN_VLAN | UNKNOWN_NET | UNKNOWN_PROTO | UNKNOWN_PORT;
	else if (next == NEXT_IPV4)
		filter_walk_ipv4();
	else if (next == NEXT_IPV6)
		filter_walk_ipv6();
	else if (next == NEXT_ARP)
		walk_arp(w);
	net.a = w->net.a | heads->any_net.a | (w->unknown & UNKNOWN_NET ? heads->keep : 0);
	net.b = w->net.b | heads->any_net.b | (w->unknown & UNKNOWN_NET ? heads->keep : 0);
	vlan.a = w->vlan.a | heads->any_vlan.a | (w->unknown & UNKNOWN_VLAN ? heads->keep : 0);
	vlan.b = w->vlan.b | heads->any_vlan.b | (w->unknown & UNKNOWN_VLAN ? heads->keep : 0);
	proto = w->proto | heads->any_proto | (w->unknown & UNKNOWN_PROTO ? heads->keep : 0);
	port = w->port | heads->any_port | (w->unknown & UNKNOWN_PORT ? heads->keep : 0);
	hit = net.a & net.b & vlan.a & vlan.b & proto & port;
	if (hit & heads->skip)
		return 1;
	return heads->keep && !(hit & heads->keep);
}

/* Whether the filter of this generation leaves the packet out. A function of its own also for its own stack:
 * with too little room clang lays spilled pointers and numbers over each other, which only programs with
 * CAP_PERFMON may. */
__noinline int filter_leaves_out(struct xdp_md *ctx, __u32 generation)
{
	__u32 slot = generation & 1;
	struct td_filter *heads = bpf_map_lookup_elem(&filter_heads, &slot);
	__u64 length = bpf_xdp_get_buff_len(ctx);
	struct window *w;

	if (!heads || !(heads->keep | heads->skip))
		return 0;
	w = the_window();
	if (!w)
		return 0;
	if (length > TD_FILTER_WINDOW)
		length = TD_FILTER_WINDOW;
	/* From 1 to the window, as old verifiers follow it: before 6.8 they learn nothing from a comparison with 0. */
	asm volatile("" : "+r"(length));
	length = ((length - 1) & (TD_FILTER_WINDOW - 1)) + 1;
	if (bpf_xdp_load_bytes(ctx, 0, w->bytes, length) != 0)
		return 0;
	w->end = length;
	w->slot = slot;
	w->at = 0;
	w->later = 0;
	w->unknown = 0;
	w->net.a = w->net.b = 0;
	w->vlan.a = w->vlan.b = 0;
	w->proto = w->port = 0;
	return filter_judge();
}
#endif
