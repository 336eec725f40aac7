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
};

/* The beginning of a packet, and what was found in it. */
struct window {
	__u8 bytes[TD_FILTER_WINDOW + WINDOW_SLACK];
	__u32 end; /* bytes of the packet that lie here */
	__u32 slot;
	__u32 at; /* where the next header begins */
	__u32 unknown;
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

/* The mask keeps the verifier happy: whoever asks has made sure with has() that the bytes are there. */
static __always_inline __u32 byte_at(const struct window *w, __u32 at)
{
	return w->bytes[at & (TD_FILTER_WINDOW - 1)];
}

static __always_inline __u32 half_at(const struct window *w, __u32 at)
{
	at &= TD_FILTER_WINDOW - 1;
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

static __always_inline void ask_net4(struct window *w, __u32 at)
{
	struct td_net4 key = { .bits = 64, .slot = w->slot };
	struct td_pair *pair;

	at &= TD_FILTER_WINDOW - 1;
	__builtin_memcpy(key.address, &w->bytes[at], sizeof(key.address));
	pair = bpf_map_lookup_elem(&filter_nets4, &key);
	if (pair) {
		w->net.a |= pair->a;
		w->net.b |= pair->b;
	}
}

static __always_inline void ask_net6(struct window *w, __u32 at)
{
	struct td_net6 key = { .bits = 160, .slot = w->slot };
	struct td_pair *pair;

	at &= TD_FILTER_WINDOW - 1;
	__builtin_memcpy(key.address, &w->bytes[at], sizeof(key.address));
	pair = bpf_map_lookup_elem(&filter_nets6, &key);
	if (pair) {
		w->net.a |= pair->a;
		w->net.b |= pair->b;
	}
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

/* Walks the link header, tags, labels and PPPoE. Returns an enum next, and leaves its place in w->at.
 * Not static: verified on its own, once, which keeps the verifier's work small; so are the others. */
__noinline int filter_walk_link(struct window *w)
{
	__u32 at = 14, type, i;

	if (!w)
		return NEXT_UNKNOWN;
	if (!has(w, 0, 14))
		return NEXT_UNKNOWN;
	type = half_at(w, 12);
	for (i = 0; i < TAGS_MAX; i++) {
		w->at = at;
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
			type = half_at(w, at + 2);
			at += 4;
		} else if (is_mpls(type)) {
			if (!has(w, at, 5))
				return NEXT_UNKNOWN;
			at += 4;
			if (byte_at(w, at - 2) & 1) {
				__u32 version = byte_at(w, at) >> 4;

				if (version != 4 && version != 6)
					return NEXT_NOTHING;
				type = version == 4 ? TYPE_IPV4 : TYPE_IPV6;
			}
		} else if (type == TYPE_PPPOE) {
			__u32 protocol;

			if (!has(w, at, 8))
				return NEXT_UNKNOWN;
			protocol = byte_at(w, at + 6);
			if (protocol & 1) {
				at += 7;
			} else {
				protocol = half_at(w, at + 6);
				at += 8;
			}
			if (protocol == 0x0021)
				type = TYPE_IPV4;
			else if (protocol == 0x0057)
				type = TYPE_IPV6;
			else if (protocol == 0x0281 || protocol == 0x0283)
				type = TYPE_MPLS;
			else
				return NEXT_NOTHING;
		} else if (type == TYPE_MACSEC || type == TYPE_FABRIC_PATH || type == TYPE_CISCO_METADATA) {
			return NEXT_UNKNOWN;
		} else if (type <= LENGTH_MAX) {
			/* LLC; with SNAP an EtherType follows. */
			if (!has(w, at, 8) || half_at(w, at) != 0xaaaa || half_at(w, at + 2) != 0x0300 ||
			    byte_at(w, at + 4) != 0 || (byte_at(w, at + 5) != 0 && byte_at(w, at + 5) != 0xf8))
				return NEXT_NOTHING;
			type = half_at(w, at + 6);
			at += 8;
			if (type <= LENGTH_MAX)
				return NEXT_NOTHING;
		} else {
			return NEXT_NOTHING;
		}
	}
	return NEXT_UNKNOWN;
}

static __always_inline int has_ports(__u32 proto)
{
	return proto == 6 || proto == 17 || proto == 33 || proto == 132 || proto == 136;
}

/* Protocol and ports at the end of an IP header's chain. */
static __always_inline void ask_transport(struct window *w, __u32 six, __u32 proto, __u32 at, int reachable)
{
	ask_proto(w, six, proto);
	if (!has_ports(proto))
		return;
	if (!reachable || !has(w, at, 4)) {
		w->unknown |= UNKNOWN_PORT;
		return;
	}
	ask_port(w, half_at(w, at));
	ask_port(w, half_at(w, at + 2));
}

#define PROTO_FRAGMENT 44
#define PROTO_AUTHENTICATION 51
#define PROTO_NONE 59

/* RFC 791. */
__noinline int filter_walk_ipv4(struct window *w)
{
	__u32 at, proto, words, later, i;

	if (!w)
		return 0;
	at = w->at;
	if (!has(w, at, 20)) {
		w->unknown |= UNKNOWN_NET | UNKNOWN_PROTO | UNKNOWN_PORT;
		return 0;
	}
	if (byte_at(w, at) >> 4 != 4)
		return 0;
	ask_net4(w, at + 12);
	ask_net4(w, at + 16);
	words = byte_at(w, at) & 0x0f;
	later = half_at(w, at + 6) & 0x1fff;
	proto = byte_at(w, at + 9);
	at += words < 5 ? 20 : words * 4;
	if (!later && words >= 5) {
		for (i = 0; i < AUTHENTICATIONS_MAX; i++) {
			if (proto != PROTO_AUTHENTICATION || !has(w, at, 2))
				break;
			proto = byte_at(w, at);
			at += (byte_at(w, at + 1) + 2) * 4;
		}
	}
	if (proto == PROTO_AUTHENTICATION) {
		w->unknown |= UNKNOWN_PROTO | UNKNOWN_PORT;
		return 0;
	}
	ask_transport(w, 0, proto, at, !later && words >= 5);
	return 0;
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

/* RFC 8200. */
__noinline int filter_walk_ipv6(struct window *w)
{
	__u32 at, proto, later = 0, i;

	if (!w)
		return 0;
	at = w->at;
	if (!has(w, at, 40)) {
		w->unknown |= UNKNOWN_NET | UNKNOWN_PROTO | UNKNOWN_PORT;
		return 0;
	}
	if (byte_at(w, at) >> 4 != 6)
		return 0;
	ask_net6(w, at + 8);
	ask_net6(w, at + 24);
	proto = byte_at(w, at + 6);
	at += 40;
	for (i = 0; i < EXTENSIONS_MAX; i++) {
		__u32 next, bytes;

		if (!is_extension(proto) || later || !has(w, at, 8))
			break;
		next = byte_at(w, at);
		/* A message ends the chain: it is the content itself. */
		if (is_message(proto) && next == PROTO_NONE) {
			ask_transport(w, 1, proto, at, 1);
			return 0;
		}
		bytes = (byte_at(w, at + 1) + 1) * 8;
		if (proto == PROTO_FRAGMENT) {
			later = half_at(w, at + 2) & 0xfff8;
			bytes = 8;
		} else if (proto == PROTO_AUTHENTICATION) {
			bytes = (byte_at(w, at + 1) + 2) * 4;
		}
		proto = next;
		at += bytes;
	}
	if (is_extension(proto)) {
		w->unknown |= UNKNOWN_PROTO | UNKNOWN_PORT;
		return 0;
	}
	ask_transport(w, 1, proto, at, !later);
	return 0;
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
	ask_net4(w, at + 14);
	ask_net4(w, at + 24);
}

/* Whether the filter of this slot leaves the packet in the window out. */
__noinline int filter_judge(struct window *w)
{
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
	next = filter_walk_link(w);
	if (next == NEXT_UNKNOWN)
		w->unknown = UNKNOWN_VLAN | UNKNOWN_NET | UNKNOWN_PROTO | UNKNOWN_PORT;
	else if (next == NEXT_IPV4)
		filter_walk_ipv4(w);
	else if (next == NEXT_IPV6)
		filter_walk_ipv6(w);
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

/* Whether the filter of this generation leaves the packet out. */
static __always_inline int filter_leaves_out(struct xdp_md *ctx, __u64 length, __u32 generation)
{
	__u32 zero = 0, slot = generation & 1;
	struct td_filter *heads = bpf_map_lookup_elem(&filter_heads, &slot);
	struct window *w;

	if (!heads || !(heads->keep | heads->skip))
		return 0;
	w = bpf_map_lookup_elem(&filter_window, &zero);
	if (!w)
		return 0;
	if (length > TD_FILTER_WINDOW)
		length = TD_FILTER_WINDOW;
	/* Bounds that clang cannot move away from the call: the verifier wants to see them. */
	asm volatile("" : "+r"(length));
	if (length == 0 || length > TD_FILTER_WINDOW || bpf_xdp_load_bytes(ctx, 0, w->bytes, length) != 0)
		return 0;
	w->end = length;
	w->slot = slot;
	w->at = 0;
	w->unknown = 0;
	w->net.a = w->net.b = 0;
	w->vlan.a = w->vlan.b = 0;
	w->proto = w->port = 0;
	return filter_judge(w);
}

#endif
