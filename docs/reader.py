#!/usr/bin/env python3
"""Takes one flow out of a sealed tapedeck segment, by way of its sidecar, without tapedeck.

usage: reader.py SEGMENT.pcapng.zst ADDRESS PORT ADDRESS PORT tcp|udp|sctp > flow.pcapng

Written from docs/format.md alone: Python 3.11 standard library and the `zstd` command. Looks at the outermost
IP header (behind VLAN tags) of Ethernet frames; checks no XXH3 checksum (zstd checks those of the frames)."""
import hashlib, ipaddress, os, struct, subprocess, sys

FRAMES, ROWS, FENCES, ADDRESSES4, STACKS, ADDRESSES6, MACS, POSTINGS, LISTS, HEAD = range(10)  # sections
OPAQUE, IPV4, IPV6, COARSE, PORTS_KNOWN = 0, 1, 2, 5, 1 << 3


class Sidecar:
    def __init__(self, path):
        self.bytes = open(path, "rb").read()
        magic, version, _, _, _, _, self.frames, self.rows = struct.unpack_from("<8s7I", self.bytes)
        if magic != b"tapedidx" or version != 2:
            sys.exit(f"{path}: not a sidecar of version 2 (version {version})")
        self.segment_len = struct.unpack_from("<Q", self.bytes, 40)[0]
        self.sections = [struct.unpack_from("<QQQ", self.bytes, 80 + 24 * i)[:2] for i in range(10)]

    def entry(self, section, number, form):
        offset = self.sections[section][0] + number * struct.calcsize(form)
        return struct.unpack_from(form, self.bytes, offset)

    def row(self, number):
        return self.entry(ROWS, number, "<QIIHHBBHII")

    def address(self, number):
        v4 = self.sections[ADDRESSES4][1] // 4
        if number < v4:
            return ipaddress.IPv4Address(self.entry(ADDRESSES4, number, "<I")[0])
        return ipaddress.IPv6Address(self.entry(ADDRESSES6, number - v4, "16s")[0])

    def rows_of(self, a, b, proto):
        """Rows of the flow, and those no property excludes (opaque and coarse ones)."""
        packed = a[0].packed + b[0].packed + bytes([proto, 0]) + struct.pack(">HH", a[1], b[1])
        wanted = int.from_bytes(hashlib.sha1(bytes(2) + packed).digest()[:8], "big")
        low, high = 0, self.rows
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.row(middle)[0] < wanted else (low, middle)
        while low < self.rows and self.row(low)[0] == wanted:
            _, at, bt, pa, pb, number, flags = self.row(low)[:7]
            if flags & 7 in (IPV4, IPV6) and flags & PORTS_KNOWN and number == proto:
                if (self.address(at), pa, self.address(bt), pb) == a + b:
                    yield low
            low += 1
        yield from (i for i in range(self.rows) if self.row(i)[6] & 7 in (OPAQUE, COARSE))

    def frames_of(self, row):
        offset, length = self.sections[POSTINGS]
        at = self.row(row)[9]
        end = self.row(row + 1)[9] if row + 1 < self.rows else length
        frame = shift = gap = 0
        for byte in self.bytes[offset + at : offset + end]:
            gap, shift = gap | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                yield frame + gap
                frame, gap, shift = frame + gap + 1, 0, 0


def matches(packet, a, b, proto):
    at = 12
    while packet[at : at + 2] in (b"\x81\x00", b"\x88\xa8", b"\x91\x00"):
        at += 4
    ethertype, ip = packet[at : at + 2], packet[at + 2 :]
    if ethertype == b"\x08\x00" and len(ip) >= 20 and not (ip[6] & 0x1F or ip[7]):
        number, src, dst, l4 = ip[9], ip[12:16], ip[16:20], ip[4 * (ip[0] & 15) :]
    elif ethertype == b"\x86\xdd" and len(ip) >= 40:
        number, src, dst, l4 = ip[6], ip[8:24], ip[24:40], ip[40:]
    else:
        return False
    ports = struct.unpack(">HH", l4[:4].ljust(4, b"\0"))
    return number == proto and sorted([(src, ports[0]), (dst, ports[1])]) == [(a[0].packed, a[1]), (b[0].packed, b[1])]


def main(segment, addr_a, port_a, addr_b, port_b, proto):
    proto = {"tcp": 6, "udp": 17, "sctp": 132}[proto]
    a, b = sorted([(ipaddress.ip_address(addr_a), int(port_a)), (ipaddress.ip_address(addr_b), int(port_b))])
    sidecar = Sidecar(segment.removesuffix(".pcapng.zst") + ".idx")
    start, length = sidecar.sections[HEAD]
    head = sidecar.bytes[start : start + length]  # else frame 0 begins with the same blocks
    wanted = set(() if head else (0,)).union(*(sidecar.frames_of(row) for row in sidecar.rows_of(a, b, proto)))
    offsets = [sidecar.entry(FRAMES, i, "<QQII6sH")[0] for i in range(sidecar.frames)] + [sidecar.segment_len]
    with open(segment, "rb") as file:
        packed = b"".join(os.pread(file.fileno(), offsets[i + 1] - offsets[i], offsets[i]) for i in sorted(wanted))
    blocks = head + subprocess.run(["zstd", "-dcq"], input=packed, stdout=subprocess.PIPE, check=bool(packed)).stdout
    at = 0
    while at < len(blocks):
        kind, length, _, _, _, caplen = struct.unpack_from("<6I", blocks, at)
        if kind in (0x0A0D0D0A, 1) or (kind == 6 and matches(blocks[at + 28 : at + 28 + caplen], a, b, proto)):
            sys.stdout.buffer.write(blocks[at : at + length])
        at += length


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) == 7 else sys.exit(__doc__)
