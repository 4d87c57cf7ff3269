package ipam

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// TestKept: the address that is kept is no pod's, the ones beside it are, and
// a pod of before that has it keeps it.
func TestKept(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, text := range []string{"10.0.0.0/29", "fd00::/125"} {
		prefix := netip.MustParsePrefix(text)
		kept := model.ProbeAddress(prefix)
		a := &Allocator{Kept: model.ProbeAddress}
		old := &model.Attachment{AttachmentKey: model.AttachmentKey{ContainerID: "old"}, Addresses: []netip.Addr{kept}}
		if err := a.Adopt(old, now); err != nil {
			t.Fatal(err)
		}
		a.SetRanges([]netip.Prefix{prefix})
		given := map[netip.Addr]bool{}
		for i := range 20 {
			owner := model.Attachment{AttachmentKey: model.AttachmentKey{ContainerID: fmt.Sprint(i)}}
			if got, err := a.Allocate(owner, now); err == nil {
				given[got.Addresses[0]] = true
			}
			if i == 10 {
				a.Release(old.AttachmentKey, now)
				now = now.Add(2 * Cooldown)
			}
		}
		// All but the first, the kept one and, of IPv4, the last.
		if want := 6 - map[bool]int{prefix.Addr().Is4(): 1}[true]; len(given) != want || given[kept] {
			t.Errorf("of %s, %v was handed out, and %s is kept", prefix, given, kept)
		}
	}
}

func TestProbeAddress(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.244.1.0/24": "10.244.1.254", "10.244.0.0/16": "10.244.255.254", "10.0.0.8/29": "10.0.0.14",
		"fd00:0:0:1::/64": "fd00::1:ffff:ffff:ffff:fffe", "10.0.0.0/30": "invalid IP",
	} {
		if got := model.ProbeAddress(netip.MustParsePrefix(prefix)).String(); got != want {
			t.Errorf("of %s: %s, not %s", prefix, got, want)
		}
	}
}
