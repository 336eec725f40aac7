// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * Makes the frames of a flood. Not part of the recorder: measurements and tests run it with
 * BPF_F_TEST_XDP_LIVE_FRAMES, which hands frame after frame of one template to it.
 *
 * Each frame gets its number and goes to the interface that was named: tapedeck_generate changes the template
 * it is given, tapedeck_replay writes the next one of a sequence that lies in maps. Frames are not made before they
 * are due: until then, and when all are made, it drops what it is given. It runs on one CPU.
 *
 * It must never send a number twice: what an interface does not take is counted there.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

/* Set before the load. */
const volatile __u32 ifindex = 0;
const volatile __u64 count = 0;
/* Time between two frames, in 1/1024 ns; 0 = as fast as it goes. */
const volatile __u64 gap = 0;
/* Flows are first_flow to first_flow + flow_mask; the port is 10000 above the flow. */
const volatile __u16 first_flow = 0;
const volatile __u16 flow_mask = 0;
/* Fill the payload with random bytes, anew for each frame. */
const volatile __u32 random_payload = 0;
/* Other than 0. */
const volatile __u64 seed = 1;

/* Templates of the sequence. */
const volatile __u32 place_count = 0;
/* A sequence is sent for so long at least, and so many bytes of it. */
const volatile __u64 least_ns = 0;
const volatile __u64 least_bytes = 0;
/* Tells generators apart that send at once. */
const volatile __u8 lane = 0;

/* Frames made so far: the number of the next one. */
__u64 made = 0;
__u64 made_bytes = 0;
__u64 start_ns = 0;
/* When one of the last frames was made. */
__u64 last_ns = 0;
__u64 state = 0;
/* The next template, and how often the sequence has been sent. */
__u32 turn = 0;
__u32 wraps = 0;
/* Frames that could not be made: not one may be. */
__u64 failed = 0;
/* By how much frames were made after they were due: how many by up to 2^i ns, the sum, the largest. */
__u64 late[32] = {};
__u64 late_sum = 0;
__u64 late_max = 0;
/* Time for which frames were not made and that was not made up for. */
__u64 stalled_ns = 0;

/* Who stood still makes up for so much, ns: more would be a burst that nobody has asked for. */
#define CATCH_UP_NS 2000000
#define FIRST_PORT 10000
/* Words of random payload: enough for a frame of 1514 bytes. */
#define WORDS 182

/* Ethernet, IPv4 without options, UDP without checksum, flow and number. The lower half of the number also
 * stands in the source address: a packet that is cut to its headers still tells it. */
struct frame {
	__u8 destination_address[6];
	__u8 source_address[2];
	__be32 low_number;
	__be16 type;
	__u8 ip[20];
	__be16 source;
	__be16 destination;
	__u8 udp[4];
	__be64 flow;
	__be64 number;
} __attribute__((packed));

static __always_inline void fill(void *at, void *end)
{
	__u64 x = state ? state : seed;

	for (int i = 0; i < WORDS; i++) {
		__u64 *word = at + 8 * i;

		if ((void *)(word + 1) > end)
			break;
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		*word = x;
	}
	state = x;
}

/* Whether the frame of this number is due, and notes by how much it is late. */
static __always_inline int due(__u64 number)
{
	__u64 now, behind, rest;
	__u32 power = 0;

	if (!gap)
		return 1;
	now = bpf_ktime_get_ns();
	if (!start_ns)
		start_ns = now;
	last_ns = now;
	behind = ((number * gap) >> 10) + stalled_ns;
	if (now - start_ns < behind)
		return 0;
	behind = now - start_ns - behind;
	if (behind > CATCH_UP_NS)
		stalled_ns += behind - CATCH_UP_NS;
	late_sum += behind;
	if (behind > late_max)
		late_max = behind;
	rest = behind;
	if (rest >> 16) {
		power += 16;
		rest >>= 16;
	}
	if (rest >> 8) {
		power += 8;
		rest >>= 8;
	}
	if (rest >> 4) {
		power += 4;
		rest >>= 4;
	}
	if (rest >> 2) {
		power += 2;
		rest >>= 2;
	}
	/* rest is 0 to 3, or larger where the last bucket takes it anyway. */
	power += rest >> 1 ? 2 : rest;
	late[power > 31 ? 31 : power]++;
	return 1;
}

SEC("xdp")
int tapedeck_generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct frame *frame = data;
	__u64 number = made;
	__u16 flow = first_flow + (number & flow_mask);

	if ((void *)(frame + 1) > end || number >= count || !due(number))
		return XDP_DROP;
	made = number + 1;
	frame->low_number = bpf_htonl((__u32)number);
	frame->source = bpf_htons(FIRST_PORT + flow);
	frame->flow = bpf_cpu_to_be64(flow);
	frame->number = bpf_cpu_to_be64(number);
	if (random_payload)
		fill(frame + 1, end);
	return bpf_redirect(ifindex, 0);
}

/* A template never crosses the end of its block, and begins far enough before it for the longest. */
#define BLOCK (1 << 16)
#define LONGEST 2048

#define RENEW 1
#define IPV6 2
#define SOURCE_IS_LOWER 4

/* Where a template lies, and what of it changes from one round of the sequence to the next (replay.rs). */
struct place {
	__u32 at;
	__u16 len;
	__u16 net;
	__u16 tcp;
	__u16 flags;
	__u32 seq_step;
	__u32 ack_step;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct place);
} places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, BLOCK);
} blocks SEC(".maps");

/* What those outside see of it while it runs, and tell it. */
struct talk {
	__u64 stop;
	__u64 made;
	/* All that was wanted is made. */
	__u64 over;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct talk);
} talks SEC(".maps");

/* Looks at the clock now and then where there is no pace. */
static __always_inline int is_over(struct talk *talk, __u64 number)
{
	if (talk->over || talk->stop || number >= count)
		return 1;
	if (!gap && !(number & 63)) {
		last_ns = bpf_ktime_get_ns();
		if (!start_ns)
			start_ns = last_ns;
	}
	if (last_ns - start_ns >= least_ns && made_bytes >= least_bytes)
		talk->over = 1;
	return talk->over;
}

/* Sums as the Internet checksum has them (RFC 1071): the same in either byte order. */
static __always_inline __u16 add(__u16 a, __u16 b)
{
	__u32 sum = (__u32)a + b;

	return (sum & 0xffff) + (sum >> 16);
}

/* Other addresses in each round, the same for both directions: what one gains the other loses, so that all
 * checksums stay right. */
static __always_inline void renew(struct place *place, void *data, void *end)
{
	__u16 *net = data + (place->net & (LONGEST - 1));
	__u16 shift = bpf_htons(wraps % 0xffff);
	int lower = place->flags & SOURCE_IS_LOWER;
	__u16 *source, *destination;

	if ((void *)net + 40 > end) {
		/* An IPv4 packet without much in it. */
		if (place->flags & IPV6 || (void *)net + 20 > end)
			return;
	}
	if (place->flags & IPV6) {
		if ((void *)net + 40 > end)
			return;
		source = net + 11;
		destination = net + 19;
	} else {
		source = net + 7;
		destination = net + 9;
	}
	*source = add(*source, lower ? shift : (__u16)~shift);
	*destination = add(*destination, lower ? (__u16)~shift : shift);
}

/* Adds to a 32 bit number of a TCP header and mends the checksum (RFC 1624). */
static __always_inline void step(__be32 *at, __u16 *check, __u32 by)
{
	__be32 old = *at, new = bpf_htonl(bpf_ntohl(old) + by);
	__u16 sum = ~*check;

	sum = add(sum, ~(__u16)old);
	sum = add(sum, ~(__u16)(old >> 16));
	sum = add(sum, (__u16)new);
	sum = add(sum, (__u16)(new >> 16));
	*check = ~sum;
	*at = new;
}

SEC("xdp")
int tapedeck_replay(struct xdp_md *ctx)
{
	__u64 number = made;
	__u32 at = turn, zero = 0, block_number, offset, len;
	struct place *place;
	struct talk *talk;
	void *block, *data, *end;

	talk = bpf_map_lookup_elem(&talks, &zero);
	if (!talk || is_over(talk, number) || !due(number))
		return XDP_DROP;
	place = bpf_map_lookup_elem(&places, &at);
	if (!place)
		goto fail;
	block_number = place->at / BLOCK;
	offset = place->at % BLOCK;
	len = place->len;
	block = bpf_map_lookup_elem(&blocks, &block_number);
	if (!block || offset > BLOCK - LONGEST || len < 14 || len > LONGEST)
		goto fail;
	if (bpf_xdp_adjust_tail(ctx, (int)len - (int)bpf_xdp_get_buff_len(ctx)) ||
	    bpf_xdp_store_bytes(ctx, 0, block + offset, len))
		goto fail;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + 14 > end)
		goto fail;
	/* The number stands in the addresses of Ethernet, so that nothing else of the packet changes. */
	*(__be32 *)data = bpf_htonl(0x02746200 | lane);
	*(__be16 *)(data + 4) = bpf_htons((__u16)(number >> 32));
	*(__be16 *)(data + 6) = bpf_htons(0x0200);
	*(__be32 *)(data + 8) = bpf_htonl((__u32)number);
	if (wraps && place->flags & RENEW)
		renew(place, data, end);
	if (wraps && place->tcp) {
		void *tcp = data + (place->tcp & (LONGEST - 1));

		if (tcp + 20 <= end) {
			step(tcp + 4, tcp + 16, wraps * place->seq_step);
			step(tcp + 8, tcp + 16, wraps * place->ack_step);
		}
	}
	made = number + 1;
	talk->made = made;
	made_bytes += len;
	turn = at + 1;
	if (turn >= place_count) {
		turn = 0;
		wraps++;
	}
	return bpf_redirect(ifindex, 0);
fail:
	failed++;
	return XDP_DROP;
}

/* With a program on it, a veth takes redirected frames also for those who have none. */
SEC("xdp")
int tapedeck_pass(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_PASS;
}

/* When the threads of a recorder sync files: what was written before such a call is durable after it. */
const volatile __u32 watched = 0;
const volatile __u64 sync_call = 0;
const volatile __u64 data_sync_call = 0;
/* Calls that the ring had no room for. */
__u64 calls_lost = 0;

struct sync_call {
	__u64 begin_ns;
	__u64 end_ns;
	__u32 thread;
	char name[16];
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} under_way SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} calls SEC(".maps");

SEC("raw_tp/sys_enter")
int tapedeck_call_begins(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 who = bpf_get_current_pid_tgid(), now;
	__u32 thread = who;

	if (who >> 32 != watched || (ctx->args[1] != sync_call && ctx->args[1] != data_sync_call))
		return 0;
	now = bpf_ktime_get_ns();
	bpf_map_update_elem(&under_way, &thread, &now, BPF_ANY);
	return 0;
}

SEC("raw_tp/sys_exit")
int tapedeck_call_ends(struct bpf_raw_tracepoint_args *ctx __attribute__((unused)))
{
	__u64 who = bpf_get_current_pid_tgid(), *begin;
	__u32 thread = who;
	struct sync_call *call;

	if (who >> 32 != watched)
		return 0;
	begin = bpf_map_lookup_elem(&under_way, &thread);
	if (!begin)
		return 0;
	call = bpf_ringbuf_reserve(&calls, sizeof(*call), 0);
	if (call) {
		call->begin_ns = *begin;
		call->end_ns = bpf_ktime_get_ns();
		call->thread = thread;
		call->pad = 0;
		bpf_get_current_comm(call->name, sizeof(call->name));
		bpf_ringbuf_submit(call, 0);
	} else {
		__sync_fetch_and_add(&calls_lost, 1);
	}
	bpf_map_delete_elem(&under_way, &thread);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
