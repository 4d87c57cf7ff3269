package agent

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

func keyOf(container string) model.AttachmentKey {
	return model.AttachmentKey{ContainerID: container, Interface: "eth0"}
}

func TestAliasTellsAll(t *testing.T) {
	for _, pod := range []model.PodKey{{}, {Namespace: "default", Name: "web-0"}} {
		a := &model.Attachment{
			AttachmentKey: keyOf(strings.Repeat("c", maxContainerID)), Pod: pod,
			Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00:1234:1234:1234:1234:1234:1234:1234")},
		}
		a.Device = deviceName(a.AttachmentKey)
		_, a.MAC = hardware(a.AttachmentKey)
		for _, ports := range [][]model.HostPort{nil, {{Port: 80}}} {
			of := *a
			of.HostPorts = ports
			text := alias(&of)
			parsed, has, err := parseAlias(a.Device, text)
			if err != nil || has != (ports != nil) || !parsed.Equal(a) || len(text) > maxAlias {
				t.Errorf("%q is read as %+v, %v, %v", text, parsed, has, err)
			}
		}
	}
}

func TestAliasLeavesOutLongNames(t *testing.T) {
	a := &model.Attachment{
		AttachmentKey: keyOf("c"), Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		Pod: model.PodKey{Namespace: "default", Name: strings.Repeat("n", 253)},
	}
	if text := alias(a); text != "fairlead c eth0 10.0.0.1" {
		t.Errorf("got %q", text)
	}
}

func TestForeignAliases(t *testing.T) {
	device := deviceName(keyOf("c"))
	for _, text := range []string{"", "fairlead", "uplink to rack 7", "fairlead c eth0 10.0.0", "fairlead d eth0 10.0.0.1", "fairlead c eth0 "} {
		if a, _, err := parseAlias(device, text); err == nil {
			t.Errorf("%q is read as %+v", text, a)
		}
	}
}

func TestPodDevices(t *testing.T) {
	if name := deviceName(keyOf("c")); !isPodDevice(name) || len(name) != 15 || name == deviceName(keyOf("d")) {
		t.Errorf("%q", name)
	}
	for _, name := range []string{"flannel.1", "fl", "flabcdefghijklm", "eth0", "flannel-v6.1000"} {
		if isPodDevice(name) {
			t.Errorf("%s is taken for a pod's", name)
		}
	}
}
