package ipam

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func owner(n int) model.AttachmentKey {
	return model.AttachmentKey{ContainerID: fmt.Sprint("c", n), Interface: "eth0"}
}

// take is Allocate for an owner of whom nothing else is known.
func take(a *Allocator, n int, now time.Time) ([]netip.Addr, error) {
	held, err := a.Allocate(model.Attachment{AttachmentKey: owner(n)}, now)
	if err != nil {
		return nil, err
	}
	return held.Addresses, nil
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func TestFirstAddresses(t *testing.T) {
	for _, test := range []struct {
		ranges []string
		want   string
	}{
		{[]string{"10.0.0.0/24"}, "[10.0.0.1]"},
		{[]string{"fd00::/64"}, "[fd00::1]"},
		{[]string{"fd00::/64", "10.0.0.0/24"}, "[10.0.0.1 fd00::1]"},
		{[]string{"10.0.0.0/30", "10.9.0.0/24"}, "[10.0.0.1]"},
		{[]string{"10.0.0.0/31", "10.9.0.0/24"}, "[10.9.0.1]"},
		{[]string{"10.0.0.7/24"}, "[10.0.0.1]"},
		{[]string{"255.255.255.254/31", "fd00::/127"}, "no address is left in [255.255.255.254/31]: 0 in use"},
		{[]string{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"}, "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"},
		{[]string{"10.0.0.0/32"}, "no address is left in [10.0.0.0/32]: 0 in use"},
		{nil, "there is no range to take an address from"},
	} {
		var a Allocator
		a.SetRanges(prefixes(test.ranges...))
		addrs, err := take(&a, 1, start)
		got := fmt.Sprint(addrs)
		if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%v: got %s, want %s", test.ranges, got, test.want)
		}
	}
}

// TestEndlessRange: what is remembered of freed addresses is no more than an hour's,
// although an IPv6 range always has others; and no address comes back within it.
func TestEndlessRange(t *testing.T) {
	var a Allocator
	a.SetRanges(prefixes("fd00::/64"))
	freed := map[netip.Addr]time.Time{}
	again := 0
	for second := range 30_000 {
		now := start.Add(time.Duration(second) * time.Second)
		addrs, err := take(&a, second, now)
		if err != nil {
			t.Fatal(err)
		}
		if at, was := freed[addrs[0]]; was {
			again++
			if now.Sub(at) < Remembered {
				t.Fatalf("%s comes back after %s", addrs[0], now.Sub(at))
			}
		}
		a.Release(owner(second), now)
		freed[addrs[0]] = now
		if resting := len(a.pools[0].freed); resting > many+1 {
			t.Fatalf("after %d pods %d addresses are remembered", second+1, resting)
		}
	}
	if again == 0 {
		t.Error("no address was handed out twice")
	}
}

func TestExhaustedSaysWhatAndUntilWhen(t *testing.T) {
	var a Allocator
	a.SetRanges(prefixes("10.0.0.0/29"))
	for n := range 6 {
		if _, err := take(&a, n, start); err != nil {
			t.Fatal(err)
		}
	}
	a.Release(owner(3), start)
	_, err := take(&a, 9, start.Add(10*time.Second))
	var exhausted *ExhaustedError
	if !errors.As(err, &exhausted) || exhausted.InUse != 5 || exhausted.Cooling != 1 || exhausted.Wait != 20*time.Second {
		t.Fatalf("got %#v", err)
	}
	addrs, err := take(&a, 9, start.Add(Cooldown))
	if err != nil || addrs[0] != netip.MustParseAddr("10.0.0.4") {
		t.Fatalf("after the cooldown: %v, %v", addrs, err)
	}
}

// One family that is exhausted takes nothing from the other.
func TestAllOrNothing(t *testing.T) {
	var a Allocator
	a.SetRanges(prefixes("10.0.0.0/24", "fd00::/127"))
	if _, err := take(&a, 1, start); err != nil {
		t.Fatal(err)
	}
	if addrs, err := take(&a, 2, start); err == nil {
		t.Fatalf("got %v", addrs)
	}
	a.SetRanges(prefixes("10.0.0.0/24", "fd00::/64"))
	if addrs, err := take(&a, 2, start); err != nil || fmt.Sprint(addrs) != "[10.0.0.2 fd00::2]" {
		t.Fatalf("got %v, %v", addrs, err)
	}
}

func TestAdoptRefusesWhatAnotherHolds(t *testing.T) {
	var a Allocator
	a.SetRanges(prefixes("10.0.0.0/24"))
	seen := &model.Attachment{AttachmentKey: owner(1), Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.9")}}
	if err := a.Adopt(seen, start); err != nil {
		t.Fatal(err)
	}
	if err := a.Adopt(&model.Attachment{AttachmentKey: owner(2), Addresses: seen.Addresses}, start); err == nil {
		t.Fatal("two owners hold one address")
	}
	if err := a.Adopt(seen, start); err != nil {
		t.Fatalf("adopting again: %v", err)
	}
}

// oracle is what must be true of any allocator, kept in the plainest way.
type oracle struct {
	holder map[netip.Addr]model.AttachmentKey
	freed  map[netip.Addr]time.Time
}

func (o *oracle) check(t *testing.T, ranges []netip.Prefix, who model.AttachmentKey, addrs []netip.Addr, now time.Time) {
	t.Helper()
	families := map[model.Family]bool{}
	for _, addr := range addrs {
		if holder, ok := o.holder[addr]; ok && holder != who {
			t.Fatalf("%s was given to %v while %v holds it", addr, who, holder)
		}
		if at, ok := o.freed[addr]; ok && now.Sub(at) < Cooldown {
			t.Fatalf("%s was given out %v after it was freed", addr, now.Sub(at))
		}
		in := rangeOf(ranges, addr)
		if !in.IsValid() || addr == in.Addr() || addr.Is4() && !in.Contains(addr.Next()) {
			t.Fatalf("%s is no address for a pod in %v", addr, ranges)
		}
		if families[model.FamilyOf(addr)] {
			t.Fatalf("two addresses of a family: %v", addrs)
		}
		families[model.FamilyOf(addr)] = true
		o.holder[addr] = who
		delete(o.freed, addr)
	}
}

// memory is a journal that is never lost.
type memory struct{ records []Record }

func (m *memory) Append(r Record) { m.records = append(m.records, r) }

func TestProperties(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		choices := [][]netip.Prefix{
			prefixes("10.0.0.0/28"), prefixes("10.0.0.0/28", "fd00::/64"),
			prefixes("10.0.0.0/29", "10.1.0.0/29"), prefixes("10.1.0.0/28", "fd00::/125"),
		}
		ranges := choices[random.IntN(len(choices))]
		journal := &memory{}
		a := Allocator{Journal: journal}
		a.SetRanges(ranges)
		truth := oracle{map[netip.Addr]model.AttachmentKey{}, map[netip.Addr]time.Time{}}
		held := map[int][]netip.Addr{}
		now := start
		for range 400 {
			now = now.Add(time.Duration(random.IntN(8)) * time.Second)
			who := random.IntN(20)
			switch random.IntN(8) {
			case 0, 1, 2:
				addrs, err := take(&a, who, now)
				if before, ok := held[who]; ok {
					if err != nil || !slices.Equal(before, addrs) {
						t.Fatalf("allocating again: %v, %v, not %v", addrs, err, before)
					}
				} else if err == nil {
					truth.check(t, ranges, owner(who), addrs, now)
					held[who] = addrs
				} else if free := truth.free(ranges, now); free {
					t.Fatalf("seed %d: %v although every family has a free address", seed, err)
				}
			case 3, 4, 5:
				a.Release(owner(who), now)
				for _, addr := range held[who] {
					delete(truth.holder, addr)
					truth.freed[addr] = now
				}
				delete(held, who)
			case 6:
				// A restart, with the journal as it was written or the fewest records.
				if random.IntN(2) == 0 {
					journal.records = a.Records(now)
				}
				a = Allocator{Journal: journal}
				for _, r := range journal.records {
					a.Restore(r, now)
				}
				fallthrough
			case 7:
				// The node's ranges change.
				ranges = choices[random.IntN(len(choices))]
				a.SetRanges(ranges)
			}
			for addr := range truth.freed {
				if !a.Known(addr) {
					t.Fatalf("seed %d: %s was handed out and is not known", seed, addr)
				}
			}
		}
	}
}

// Steps of an earlier life are as old as they were, but none is in the future:
// the clock may have been set.
func TestRestoredCooldown(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	for _, test := range []struct {
		at   time.Time
		want time.Duration
	}{{start.Add(-10 * time.Second), 20 * time.Second}, {start.Add(time.Hour), Cooldown}} {
		var a Allocator
		a.Restore(Record{At: test.at, Released: true, Attachment: model.Attachment{Addresses: addrs}}, start)
		a.SetRanges(prefixes("10.0.0.0/30"))
		a.Reserve([]netip.Addr{netip.MustParseAddr("10.0.0.2")}, start)
		var exhausted *ExhaustedError
		if err := a.Available(start); !errors.As(err, &exhausted) || exhausted.Wait != test.want {
			t.Errorf("freed at %v: %v", test.at, err)
		}
		if err := a.Available(start.Add(test.want)); err != nil {
			t.Errorf("after that: %v", err)
		}
	}
}

// A journal that lost the release of an address: its last owner has it.
func TestLostRelease(t *testing.T) {
	var a Allocator
	addr := netip.MustParseAddr("10.0.0.1")
	for n := range 2 {
		a.Restore(Record{At: start, Attachment: model.Attachment{AttachmentKey: owner(n), Addresses: []netip.Addr{addr}}}, start)
	}
	if a.Held(owner(0)) != nil || a.Held(owner(1)) == nil {
		t.Error("the first owner has the address")
	}
	a.Restore(Record{At: start, Released: true, Attachment: model.Attachment{AttachmentKey: owner(0), Addresses: []netip.Addr{addr}}}, start)
	if a.Held(owner(1)) == nil {
		t.Error("an owner that held nothing more has freed it")
	}
}

// What others use is not handed out, nor is it known as ours.
func TestReserve(t *testing.T) {
	var a Allocator
	a.SetRanges(prefixes("10.0.0.0/29"))
	foreign := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("10.9.9.9")}
	a.Reserve(foreign, start)
	for n, want := range []string{"10.0.0.2", "10.0.0.4"} {
		if addrs, err := take(&a, n, start); err != nil || addrs[0].String() != want {
			t.Fatalf("got %v, %v, not %s", addrs, err, want)
		}
	}
	a.Reserve(append(foreign, netip.MustParseAddr("10.0.0.2")), start) // one that is held is not touched
	a.Release(owner(0), start)
	if a.Known(foreign[0]) || !a.Known(netip.MustParseAddr("10.0.0.2")) {
		t.Error("it is not known what was handed out")
	}
	a.Reserve(nil, start)
	given := map[string]bool{}
	for n := range 5 {
		if addrs, err := take(&a, 10+n, start.Add(Cooldown)); err == nil {
			given[addrs[0].String()] = true
		}
	}
	if len(given) != 5 || !given["10.0.0.1"] || !given["10.0.0.3"] {
		t.Errorf("after that there are %v", given)
	}
}

// free tells whether each family of the ranges has an address to hand out, by
// trying all of them.
func (o *oracle) free(ranges []netip.Prefix, now time.Time) bool {
	free := map[model.Family]bool{}
	for _, prefix := range ranges {
		family := model.FamilyOf(prefix.Addr())
		addr := prefix.Addr().Next()
		for range 64 {
			usable := prefix.Contains(addr) && (addr.Is6() || prefix.Contains(addr.Next()))
			at, resting := o.freed[addr]
			if _, taken := o.holder[addr]; usable && !taken && (!resting || now.Sub(at) >= Cooldown) {
				free[family] = true
			}
			addr = addr.Next()
		}
	}
	return (free[model.IPv4] || !has(ranges, model.IPv4)) && (free[model.IPv6] || !has(ranges, model.IPv6))
}

func rangeOf(ranges []netip.Prefix, addr netip.Addr) netip.Prefix {
	at := slices.IndexFunc(ranges, func(p netip.Prefix) bool { return p.Contains(addr) })
	if at < 0 {
		return netip.Prefix{}
	}
	return ranges[at]
}

func has(ranges []netip.Prefix, family model.Family) bool {
	return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return model.FamilyOf(p.Addr()) == family })
}

// A full /16 and an empty /64 cost the same.
func BenchmarkAllocate(b *testing.B) {
	var a Allocator
	a.SetRanges(prefixes("10.0.0.0/16", "fd00::/64"))
	now := start
	for n := range 1<<16 - 2 {
		if _, err := take(&a, n, now); err != nil {
			b.Fatal(err)
		}
	}
	n := 0
	for b.Loop() {
		now = now.Add(Cooldown)
		a.Release(owner(n%1000), now)
		now = now.Add(Cooldown)
		if _, err := take(&a, n%1000, now); err != nil {
			b.Fatal(err)
		}
		n++
	}
}
