/* What the programs use of the kernel's interface to BPF, as Linux 5.10 has it
 * in include/uapi/linux/bpf.h; it only ever grows. No more than is used. */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef long long __s64;

#define bool _Bool
#define true 1
#define false 0
#define SEC(name) __attribute__((section(name), used))
#define inline __attribute__((always_inline)) static inline
#define htons(x) __builtin_bswap16(x)

enum { ETH_HLEN = 14, ETH_P_IP = 0x0800 };
enum { IPPROTO_ICMP = 1, IPPROTO_IPIP = 4, IPPROTO_TCP = 6 };
enum { ECN_ECT1 = 1, ECN_ECT0 = 2, ECN_CE = 3, ECN_MASK = 3 };
enum { ICMP_DEST_UNREACH = 3, ICMP_HOST_UNREACH = 1, ICMP_FRAG_NEEDED = 4, ICMP_TIME_EXCEEDED = 11 };
enum { MIN_MTU = 68 }; /* of IPv4: RFC 791, 3.1 */
enum { IP_DF = 0x4000, IP_MF = 0x2000, IP_OFFSET = 0x1fff };
enum { EINVAL = 22, EALREADY = 114, ENOTSUPP = 524 };
enum { PACKET_HOST = 0 };
enum { TC_ACT_UNSPEC = -1, TC_ACT_SHOT = 2 };

/* The context of a program; the verifier translates reads of it. */
struct __sk_buff {
	__u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci,
		vlan_proto, priority, ingress_ifindex, ifindex, tc_index, cb[5], hash,
		tc_classid, data, data_end, napi_id, family, remote_ip4, local_ip4,
		remote_ip6[4], local_ip6[4], remote_port, local_port, data_meta;
	__u64 flow_keys, tstamp;
	__u32 wire_len, gso_segs;
	__u64 sk;
	__u32 gso_size;
};

struct iphdr {
	__u8 version_ihl, tos;
	__u16 tot_len, id, frag_off;
	__u8 ttl, protocol;
	__u16 check;
	__u32 saddr, daddr;
};

struct icmphdr {
	__u8 type, code;
	__u16 check, unused, mtu;
};

/* Who talks to whom: struct bpf_sock_tuple. */
struct tuple4 {
	__u32 saddr, daddr;
	__u16 sport, dport;
};

enum { BPF_ADJ_ROOM_MAC = 1 };
enum {
	BPF_F_ADJ_ROOM_FIXED_GSO = 1 << 0,
	BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 = 1 << 1,
	BPF_F_ADJ_ROOM_NO_CSUM_RESET = 1 << 5,
	BPF_F_ADJ_ROOM_DECAP_IPXIP4 = 1 << 11, /* newer than Linux 6.18 */
};
enum { BPF_F_RECOMPUTE_CSUM = 1 };
enum { BPF_F_INGRESS = 1 };
static const __u64 BPF_F_CURRENT_NETNS = -1;

static long (*const bpf_skb_store_bytes)(struct __sk_buff *, __u32 offset, const void *from, __u32 len, __u64 flags) = (void *)9;
static long (*const bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*const bpf_skb_load_bytes)(const void *, __u32 offset, void *to, __u32 len) = (void *)26;
static __s64 (*const bpf_csum_diff)(const void *from, __u32 from_size, const void *to, __u32 to_size, __u32 seed) = (void *)28;
static long (*const bpf_skb_adjust_room)(struct __sk_buff *, __s32 len_diff, __u32 mode, __u64 flags) = (void *)50;
static void (*const bpf_sk_release)(void *) = (void *)86;
static void *(*const bpf_skc_lookup_tcp)(void *, const struct tuple4 *, __u32 len, __u64 netns, __u64 flags) = (void *)99;
static long (*const bpf_redirect_neigh)(__u32 ifindex, void *params, int plen, __u64 flags) = (void *)152;
