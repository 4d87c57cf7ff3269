package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// The alias of each pair's host side says whose it is, so that an agent that
// starts learns from the kernel what an earlier one gave out:
//
//	fairlead CONTAINER INTERFACE ADDRESS[,ADDRESS] [NAMESPACE/POD [+hostports]]
//
// Host ports themselves are in the journal alone: there is no room here. The
// pod is / alone if its name is too long.
const (
	aliasWord = "fairlead"
	portsWord = "+hostports"
)

// maxAlias in bytes: IFALIASZ without its final zero.
const maxAlias = 255

// maxContainerID in bytes leaves room for the rest of the alias. Container
// runtimes use 64.
const maxContainerID = 128

func alias(a *model.Attachment) string {
	var addrs []string
	for _, addr := range a.Addresses {
		addrs = append(addrs, addr.String())
	}
	text := strings.Join([]string{aliasWord, a.ContainerID, a.Interface, strings.Join(addrs, ",")}, " ")
	ports := ""
	if len(a.HostPorts) > 0 || a.PortsLost {
		ports = " " + portsWord
	}
	if named := text + " " + a.Pod.String() + ports; a.Pod != (model.PodKey{}) && len(named) <= maxAlias {
		return named
	}
	if ports != "" {
		text += " " + model.PodKey{}.String() + ports
	}
	return text
}

// parseAlias is alias' inverse, but for the host ports, of which it tells whether
// there are any.
func parseAlias(device, text string) (a *model.Attachment, ports bool, err error) {
	words := strings.Fields(text)
	if len(words) < 4 || words[0] != aliasWord {
		return nil, false, fmt.Errorf("%s has the alias %q", device, text)
	}
	a = &model.Attachment{
		AttachmentKey: model.AttachmentKey{ContainerID: words[1], Interface: words[2]},
		Device:        device,
	}
	if deviceName(a.AttachmentKey) != device {
		return nil, false, fmt.Errorf("%s has the alias of another device: %q", device, text)
	}
	for _, word := range strings.Split(words[3], ",") {
		addr, err := netip.ParseAddr(word)
		if err != nil {
			return nil, false, fmt.Errorf("%s has the alias %q: %w", device, text, err)
		}
		a.Addresses = append(a.Addresses, addr)
	}
	if len(words) > 4 {
		a.Pod.Namespace, a.Pod.Name, _ = strings.Cut(words[4], "/")
	}
	_, a.MAC = hardware(a.AttachmentKey)
	return a, slices.Contains(words, portsWord), nil
}
