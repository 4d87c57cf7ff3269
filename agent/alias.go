package agent

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/model"
)

// The alias of each pair's host side says whose it is, so that an agent that
// starts learns from the kernel what an earlier one gave out:
//
//	fairlead CONTAINER INTERFACE ADDRESS[,ADDRESS] [NAMESPACE/POD]
const aliasWord = "fairlead"

// maxAlias in bytes: IFALIASZ without its final zero.
const maxAlias = 255

// maxContainerID in bytes leaves room for the rest of the alias. Container
// runtimes use 64.
const maxContainerID = 128

// alias leaves out the pod if its name is too long.
func alias(a *model.Attachment) string {
	var addrs []string
	for _, addr := range a.Addresses {
		addrs = append(addrs, addr.String())
	}
	text := strings.Join([]string{aliasWord, a.ContainerID, a.Interface, strings.Join(addrs, ",")}, " ")
	if named := text + " " + a.Pod.String(); a.Pod != (model.PodKey{}) && len(named) <= maxAlias {
		return named
	}
	return text
}

// parseAlias is alias' inverse.
func parseAlias(device, text string) (*model.Attachment, error) {
	words := strings.Fields(text)
	if len(words) < 4 || words[0] != aliasWord {
		return nil, fmt.Errorf("%s has the alias %q", device, text)
	}
	a := &model.Attachment{
		AttachmentKey: model.AttachmentKey{ContainerID: words[1], Interface: words[2]},
		Device:        device,
	}
	if deviceName(a.AttachmentKey) != device {
		return nil, fmt.Errorf("%s has the alias of another device: %q", device, text)
	}
	for _, word := range strings.Split(words[3], ",") {
		addr, err := netip.ParseAddr(word)
		if err != nil {
			return nil, fmt.Errorf("%s has the alias %q: %w", device, text, err)
		}
		a.Addresses = append(a.Addresses, addr)
	}
	if len(words) > 4 {
		a.Pod.Namespace, a.Pod.Name, _ = strings.Cut(words[4], "/")
	}
	return a, nil
}

// remains are the pairs of an earlier life.
type remains struct {
	attachments []*model.Attachment
	unlabelled  []string // the agent ended while it made them, so nobody uses them
	strange     []error  // labelled in a way that is not understood; left alone
}

func findRemains() (r remains, err error) {
	all, err := whole(netlink.LinkList)
	if err != nil {
		return r, fmt.Errorf("list the pods' links: %w", err)
	}
	for _, link := range all {
		name, label := link.Attrs().Name, link.Attrs().Alias
		if link.Type() != "veth" || !isPodDevice(name) {
			continue
		}
		attachment, err := parseAlias(name, label)
		switch {
		case label == "":
			r.unlabelled = append(r.unlabelled, name)
		case err != nil:
			r.strange = append(r.strange, err)
		default:
			r.attachments = append(r.attachments, attachment)
		}
	}
	return r, nil
}
