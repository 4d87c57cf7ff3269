package apiserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"sort"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
)

// bookmarks is how often a quiet watch gets one, as API servers do.
const bookmarks = time.Minute

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	at := strings.TrimSuffix(r.URL.Path, "/status")
	if strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata") {
		at += ";metadata"
	}
	if c := s.collections[at]; c != nil && r.Method == http.MethodGet {
		query := r.URL.Query()
		switch {
		case query.Get("sendInitialEvents") == "true":
			s.Requests.count("watch list " + c.resource)
			s.watch(w, r, c)
		case query.Get("watch") != "":
			s.Requests.count("resume " + c.resource)
			s.watch(w, r, c)
		default:
			s.Requests.count("list " + c.resource)
			s.list(w, c)
		}
		return
	}
	collection, name := path.Split(at)
	before, in, ok := strings.Cut(collection, "/namespaces/")
	namespace := ""
	if ok {
		namespace, in, _ = strings.Cut(in, "/")
		collection = before + "/" + in
	}
	c := s.collections[strings.TrimSuffix(collection, "/")]
	switch {
	case c != nil && r.Method == http.MethodGet:
		s.Requests.count("get " + c.resource)
		s.get(w, c, namespace+"/"+name)
	case r.Method == http.MethodPost && strings.HasSuffix(at, "/nodenetworks"), c != nil && r.Method == http.MethodPut:
		s.Requests.count(map[string]string{http.MethodPost: "create", http.MethodPut: "update"}[r.Method] + " nodenetworks")
		s.write(w, r)
	default:
		s.Requests.count(strings.ToLower(r.Method) + " other")
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
	}
}

func (s *Server) get(w http.ResponseWriter, c *collection, key string) {
	s.mu.Lock()
	found := c.items[key]
	s.mu.Unlock()
	if found == nil {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	w.Header().Set("Content-Type", c.wire.contentType(false))
	_, _ = w.Write(found.object)
}

// write takes a NodeNetwork, the only thing that agents write.
func (s *Server) write(w http.ResponseWriter, r *http.Request) {
	report := &v1alpha1.NodeNetwork{}
	if err := json.NewDecoder(r.Body).Decode(report); err != nil {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	report.TypeMeta = TypeOf("NodeNetwork")
	if err := s.Put(Reports, report); err != nil {
		refuse(w, http.StatusInternalServerError, metav1.StatusReasonInternalError)
		return
	}
	w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	_ = json.NewEncoder(w).Encode(report)
}

// list is for clients that do not ask for initial events.
func (s *Server) list(w http.ResponseWriter, c *collection) {
	s.mu.Lock()
	revision := s.revision
	var objects []runtime.Object
	for _, item := range c.items {
		if decoded, err := runtime.Decode(scheme.Codecs.UniversalDeserializer(), item.object); err == nil {
			objects = append(objects, decoded)
		}
	}
	s.mu.Unlock()
	if c.list == nil {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	list := c.list.DeepCopyObject()
	accessor, err := meta.ListAccessor(list)
	if err == nil {
		accessor.SetResourceVersion(strconv.Itoa(revision))
		err = meta.SetList(list, objects)
	}
	var content []byte
	if err == nil {
		content, err = c.wire.object(c.version, list)
	}
	if err != nil {
		refuse(w, http.StatusInternalServerError, metav1.StatusReasonInternalError)
		return
	}
	w.Header().Set("Content-Type", c.wire.contentType(false))
	_, _ = w.Write(content)
}

// watch sends what comes, and what is there before it if that is asked for.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, c *collection) {
	query := r.URL.Query()
	from, _ := strconv.Atoi(query.Get("resourceVersion"))
	frames, from, err := s.begin(c, from, query.Get("sendInitialEvents") == "true")
	if err != nil {
		refuse(w, http.StatusGone, metav1.StatusReasonExpired)
		return
	}
	seconds, _ := strconv.Atoi(query.Get("timeoutSeconds"))
	if seconds == 0 {
		seconds = 1800
	}
	timeout := time.NewTimer(time.Duration(seconds) * time.Second)
	defer timeout.Stop()
	mark := time.NewTicker(bookmarks)
	defer mark.Stop()
	w.Header().Set("Content-Type", c.wire.contentType(true))
	flush := http.NewResponseController(w).Flush
	s.Watches.Add(1)
	defer s.Watches.Add(-1)
	for {
		for _, frame := range frames {
			if _, err := w.Write(frame); err != nil {
				return
			}
		}
		if err := flush(); err != nil {
			return
		}
		frames = frames[:0]
		s.mu.Lock()
		changed := s.changed
		first := sort.Search(len(c.events), func(i int) bool { return c.events[i].revision > from })
		for _, event := range c.events[first:] {
			frames, from = append(frames, event.frame), event.revision
		}
		s.mu.Unlock()
		if len(frames) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-mark.C:
			if frame, err := c.bookmark(from, false); err == nil {
				frames = append(frames, frame)
			}
		case <-timeout.C:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// begin returns what a watch gets first, and from where it goes on.
func (s *Server) begin(c *collection, from int, initial bool) (frames [][]byte, _ int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from > 0 && from < c.oldest && !initial {
		return nil, 0, errGone
	}
	if !initial {
		return nil, from, nil
	}
	for _, item := range c.items {
		frames = append(frames, item.added)
	}
	mark, err := c.bookmark(s.revision, true)
	return append(frames, mark), s.revision, err
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: fmt.Sprint(reason),
	})
}
