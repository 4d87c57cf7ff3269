package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// foreign finds the pods of this node that something else has connected, before
// Fairlead came, as a rule. Their addresses are not handed out, and they are
// named until they are gone.
type foreign struct {
	node     string
	feed     *model.Feed
	synced   <-chan struct{} // closed once the feed has all pods
	known    <-chan struct{} // closed once the feed has the links
	attacher *attacher
	notices  *notices
	reserved chan struct{} // closed when their addresses are not handed out
}

// Run looks at each change of a pod of the node until the context ends.
func (f *foreign) Run(ctx context.Context) error {
	for _, complete := range []<-chan struct{}{f.synced, f.known} {
		select {
		case <-ctx.Done():
			return nil
		case <-complete:
		}
	}
	var seen model.Map[model.PodKey, *model.Pod]
	var links model.Map[string, *model.Link]
	local := map[model.PodKey]*model.Pod{} // those of this node that have addresses of their own
	for first := true; ; first = false {
		snapshot, changed := f.feed.Latest()
		different := first || links != snapshot.Links
		links = snapshot.Links
		for change := range model.Diff(seen, snapshot.Pods) {
			_, was := local[change.Key]
			delete(local, change.Key)
			is := change.Has && f.concerns(change.New)
			if is {
				local[change.Key] = change.New
			}
			different = different || was || is
		}
		seen = snapshot.Pods
		if different {
			f.reserve(local, links)
		}
		if first {
			close(f.reserved)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (f *foreign) concerns(pod *model.Pod) bool {
	return pod.Node == f.node && !pod.HostNetwork && !pod.Finished && len(pod.Addresses) > 0
}

// reserve keeps the addresses of pods that have none of ours, and those of the
// node's own interfaces: the bridge of another network has one of the pods'
// range. A pod is ours as long as its address is known to have been handed out:
// one that ends is seen with it for some time.
func (f *foreign) reserve(local map[model.PodKey]*model.Pod, links model.Map[string, *model.Link]) {
	problems, addrs := f.attacher.strangers()
	for _, link := range links.All() {
		for _, prefix := range link.Addresses {
			addrs = append(addrs, prefix.Addr())
		}
	}
	f.attacher.mu.Lock()
	defer f.attacher.mu.Unlock()
	for _, pod := range local {
		known := false
		for _, addr := range pod.Addresses {
			known = known || f.attacher.addresses.Known(addr)
		}
		if known {
			continue
		}
		addrs = append(addrs, pod.Addresses...)
		problems = append(problems, model.Problem{
			Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, Field: "status.podIPs", Reason: "PodOfAnotherNetwork",
			Message: fmt.Sprintf("Fairlead did not give it its addresses %v on node %s: it was made before, by another network, and may be cut off", pod.Addresses, f.node),
			Remedy:  "delete the pod, so that it is made anew",
		})
	}
	f.attacher.addresses.Reserve(addrs, time.Now())
	f.notices.set("foreign", problems...)
}
