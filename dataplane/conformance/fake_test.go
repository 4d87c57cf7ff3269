package conformance_test

import (
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/dataplane/conformance"
	"github.com/fairlead-net/fairlead/dataplane/fake"
	"github.com/fairlead-net/fairlead/plan"
)

// fakeKernel looks up by the oracle over what the fake kernel holds.
type fakeKernel struct{ *fake.Kernel }

func (k fakeKernel) Start() dataplane.Dataplane { return fake.New(k.Kernel) }

func (k fakeKernel) Sysctl(path string) string {
	value, _ := k.Observed().Route.Sysctls.Get(path)
	return value
}

func (k fakeKernel) Lookup(packet plan.Packet) plan.Hop {
	hop := plan.Verdict(k.Observed(), packet)
	hop.Masquerade = false
	return hop
}

func (k fakeKernel) AddDevice(name string, addresses ...netip.Prefix) {
	k.Kernel.AddDevice(name, addresses...)
}

func TestFake(t *testing.T) {
	conformance.Run(t, func(*testing.T) conformance.Subject { return fakeKernel{fake.NewKernel()} })
}
