package agent

import (
	"context"
	"time"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// fetchTime bounds the request for a pod that the watch has not told of. The
// kubelet, which has heard of it, heard it from the same API server.
const fetchTime = 2 * time.Second

// acquaint makes the snapshot have the pod that is to be connected, so that its
// first packet meets what policies say of it, and returns the latest. A pod that
// stays unknown is isolated by the plan until the watch tells of it.
func (a *attacher) acquaint(ctx context.Context, snapshot *model.Snapshot, w wanted) *model.Snapshot {
	attachment := &model.Attachment{AttachmentKey: w.AttachmentKey, Pod: w.pod, UID: w.uid}
	if a.pods == nil || w.pod == (model.PodKey{}) || snapshot.PodOf(attachment, a.node) != nil {
		return snapshot
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	before, _ := snapshot.Pods.Get(w.pod)
	pod, err := a.pods.Pod(ctx, w.pod)
	log := a.log.With("pod", w.pod.String(), "container", w.ContainerID, "took", time.Since(began).Round(time.Millisecond))
	if a.answered != nil && (err == nil || kube.IsNotFound(err)) {
		a.answered() // before its policies count
	}
	latest, _ := a.feed.Latest()
	switch {
	case latest.PodOf(attachment, a.node) != nil:
		return latest // the watch has told of it meanwhile
	case kube.IsNotFound(err): // such as one that the kubelet has from a file
		log.Warn("the API server does not have the pod: it is isolated until it does")
		return latest
	case err != nil:
		log.Warn("a pod that is not known yet could not be read: it is isolated until it is known", "error", err)
		return latest
	case !attachment.IsOf(pod, a.node):
		log.Warn("the API server has another pod of that name: this one is isolated", "uid", pod.UID, "node", pod.Node)
		return latest
	}
	a.mu.Lock()
	a.fetched[w.AttachmentKey] = pod
	a.mu.Unlock()
	a.feed.Edit(func(s *model.Snapshot) {
		// What the watch has told since is newer.
		if now, _ := s.Pods.Get(w.pod); now == before {
			s.Pods = s.Pods.With(w.pod, pod)
		}
	})
	latest, _ = a.feed.Latest()
	return latest
}

// parted takes a pod that acquaint has read out of the snapshot, with its
// attachment, unless the watch has told of it since: if that had told of its end
// before acquaint was done, nobody else would.
func (a *attacher) parted(s *model.Snapshot, key model.AttachmentKey) {
	pod, ok := a.fetched[key]
	if !ok {
		return
	}
	delete(a.fetched, key)
	if now, _ := s.Pods.Get(pod.PodKey); now == pod {
		s.Pods = s.Pods.Without(pod.PodKey)
	}
}
