package ipam

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

func TestUsage(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var a Allocator
	if usage := a.Usage(now); len(usage) != 0 {
		t.Errorf("without ranges: %+v", usage)
	}
	a.SetRanges([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/29"), netip.MustParsePrefix("fd00::/64"), netip.MustParsePrefix("10.0.1.0/30")})
	for _, container := range []string{"1", "2", "3"} {
		owner := model.Attachment{AttachmentKey: model.AttachmentKey{ContainerID: container}}
		if _, err := a.Allocate(owner, now); err != nil {
			t.Fatal(err)
		}
	}
	a.Release(model.AttachmentKey{ContainerID: "3"}, now)
	a.Reserve([]netip.Addr{netip.MustParseAddr("10.0.0.6"), netip.MustParseAddr("192.0.2.1")}, now)
	usage := a.Usage(now.Add(Cooldown / 2))
	if len(usage) != 2 {
		t.Fatalf("usage: %+v", usage)
	}
	// 10.0.0.1 to .6 and 10.0.1.1 to .2; two are held and one is reserved.
	if v4 := usage[0]; v4.Family != model.IPv4 || v4.Total != 8 || v4.InUse != 3 || v4.Cooling != 1 || len(v4.Ranges) != 2 {
		t.Errorf("IPv4: %+v", v4)
	}
	if v6 := usage[1]; v6.Family != model.IPv6 || v6.Total < 1.8e19 || v6.InUse != 2 || v6.Cooling != 1 {
		t.Errorf("IPv6: %+v", v6)
	}
	if later := a.Usage(now.Add(Cooldown)); later[0].Cooling != 0 {
		t.Errorf("an address rests longer than it should: %+v", later[0])
	}

	// What is counted is what can be had.
	var full Allocator
	full.SetRanges([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/28")})
	for full.Available(now) == nil {
		owner := model.Attachment{AttachmentKey: model.AttachmentKey{ContainerID: time.Duration(len(full.holders)).String()}}
		if _, err := full.Allocate(owner, now); err != nil {
			t.Fatal(err)
		}
	}
	if u := full.Usage(now)[0]; u.Total != float64(u.InUse) {
		t.Errorf("a full range has %v addresses, and %d are in use", u.Total, u.InUse)
	}
}
