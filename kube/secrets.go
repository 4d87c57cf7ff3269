package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternal "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/fairlead-net/fairlead/model"
)

// secrets are those that somebody names, and those of certificates that were
// ordered, whose names alone tell that they are there. Of the others this process keeps nothing,
// and what they have never comes to it, but in pages of a list at the start: a watch
// of metadata tells which have changed, and those that are named are read.
type secrets struct {
	client   *Client
	problems *problems
	queue    workqueue.TypedRateLimitingInterface[model.SecretKey] // to be read; the zero key: all that were not

	mu      sync.Mutex
	named   model.Map[model.SecretKey, int]
	states  map[model.SecretKey]*secretState // of those that are named
	waiting int                              // of them, for an answer
	known   model.Map[model.SecretKey, *model.Secret]
	changed chan struct{} // closed and replaced with known and waiting
}

// secretState is what is known of a Secret beside what it has.
type secretState struct {
	answered bool   // be it that it could not be read
	version  string // that was read; empty: there is none
}

const (
	secretReaders = 4
	// With more new names at once than this, all Secrets are listed in pages: requests
	// for each would take longer.
	mostSecretReads = 40
	// mostSecret is how much of a Secret is kept, in bytes: more are no certificates
	// and no users.
	mostSecret = 1 << 20
	// secretTimeout is for one request.
	secretTimeout = 10 * time.Second
)

func newSecrets(client *Client, problems *problems) *secrets {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[model.SecretKey](firstPause, mostPause)
	return &secrets{
		client: client, problems: problems, changed: make(chan struct{}), states: map[model.SecretKey]*secretState{},
		queue: workqueue.NewTypedRateLimitingQueue(limiter),
	}
}

// name says which Secrets are wanted, and gives up the others.
func (s *secrets) name(keys model.Map[model.SecretKey, int]) {
	var dropped, wanted []model.SecretKey
	s.mu.Lock()
	for change := range model.Diff(s.named, keys) {
		switch {
		case isOrdered(change.Key): // known whether it is named or not
		case !change.Has:
			dropped = append(dropped, change.Key)
			if !s.states[change.Key].answered {
				s.waiting--
			}
			delete(s.states, change.Key)
			s.known = s.known.Without(change.Key)
		case !change.Had:
			wanted = append(wanted, change.Key)
			s.states[change.Key] = &secretState{}
			s.waiting++
		}
	}
	s.named = keys
	if len(dropped)+len(wanted) > 0 {
		s.signal()
	}
	s.mu.Unlock()
	for _, key := range dropped {
		s.problems.set("Secret", key.String(), nil)
	}
	if len(wanted) > mostSecretReads {
		s.queue.Add(model.SecretKey{})
		return
	}
	for _, key := range wanted {
		s.queue.Add(key)
	}
}

// signal tells of a change; the caller holds the lock.
func (s *secrets) signal() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// run reads what is named, while watch runs, until the context ends.
func (s *secrets) run(ctx context.Context, watch func(context.Context)) {
	var running sync.WaitGroup
	for range secretReaders {
		running.Go(func() {
			for {
				key, ended := s.queue.Get()
				if ended {
					return
				}
				if err := s.read(ctx, key); err == nil {
					s.queue.Forget(key)
				} else if ctx.Err() == nil {
					s.queue.AddRateLimited(key)
				}
				s.queue.Done(key)
			}
		})
	}
	watch(ctx)
	s.queue.ShutDown()
	running.Wait()
}

// read reads one, or all that were not read yet. An error is to be tried again.
func (s *secrets) read(ctx context.Context, key model.SecretKey) error {
	if key == (model.SecretKey{}) {
		return s.readAll(ctx)
	}
	s.mu.Lock()
	wanted := s.states[key] != nil
	s.mu.Unlock()
	if !wanted {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	object, err := s.client.core.Secrets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	switch {
	case IsNotFound(err):
		s.put(key, nil, "", nil)
	case err != nil:
		s.put(key, nil, "", err)
		return err
	default:
		s.put(key, object, object.ResourceVersion, nil)
	}
	return nil
}

// readAll lists all Secrets, and keeps those that were named before and not read. What
// it does not find of them is not there. Of those that are named meanwhile it says
// nothing: what they are may be older than what was noticed before.
func (s *secrets) readAll(ctx context.Context) error {
	wanted := s.unanswered()
	if len(wanted) == 0 {
		return nil
	}
	options := metav1.ListOptions{Limit: pageSize}
	for {
		ctx, cancel := context.WithTimeout(ctx, secretTimeout)
		list, err := s.client.core.Secrets(metav1.NamespaceAll).List(ctx, options)
		cancel()
		if err != nil {
			for key := range wanted {
				s.queue.Add(key) // each says what keeps it
			}
			return nil
		}
		for i := range list.Items {
			object := &list.Items[i]
			key := model.SecretKey{Namespace: object.Namespace, Name: object.Name}
			if state := wanted[key]; state != nil {
				s.putFirst(state, key, object.DeepCopy(), object.ResourceVersion) // the page is not to live as long as it
			}
		}
		if options.Continue = list.Continue; list.Continue == "" {
			break
		}
	}
	for key, state := range wanted {
		s.putFirst(state, key, nil, "")
	}
	return nil
}

func (s *secrets) unanswered() map[model.SecretKey]*secretState {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[model.SecretKey]*secretState{}
	for key, state := range s.states {
		if !state.answered {
			all[key] = state
		}
	}
	return all
}

// putFirst notes what a Secret has, unless that is known by now: what is known is newer.
func (s *secrets) putFirst(state *secretState, key model.SecretKey, object *corev1.Secret, version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.states[key] == state && !state.answered {
		s.note(state, key, object, version, nil)
	}
}

// put notes what a Secret has; nil: there is none. With an error, what was known of it
// stays.
func (s *secrets) put(key model.SecretKey, object *corev1.Secret, version string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state := s.states[key]; state != nil { // else it is not named any more
		s.note(state, key, object, version, err)
	}
}

// note does what put says. The caller holds the lock.
func (s *secrets) note(state *secretState, key model.SecretKey, object *corev1.Secret, version string, err error) {
	var found []model.Problem
	var secret *model.Secret
	if err != nil {
		found = secretNotRead(key, err)
	} else if object != nil {
		secret, found = convertSecret(object)
	}
	s.problems.set("Secret", key.String(), found)
	if !state.answered {
		state.answered = true
		s.waiting--
		defer s.signal()
	}
	if err != nil {
		return
	}
	if state.version = version; version == "" && isOrdered(key) {
		delete(s.states, key)
	}
	old, had := s.known.Get(key)
	switch {
	case secret == nil && had:
		s.known = s.known.Without(key)
	case secret == nil || had && old.Equal(secret):
		return
	default:
		s.known = s.known.With(key, secret)
	}
	s.signal()
}

// convertSecret keeps what Secrets of certificates and users have; tokens and such
// are nobody's business here.
func convertSecret(object *corev1.Secret) (*model.Secret, []model.Problem) {
	key := model.SecretKey{Namespace: intern(object.Namespace), Name: object.Name}
	wrong := func(message string) (*model.Secret, []model.Problem) {
		return nil, []model.Problem{{
			Kind: "Secret", Namespace: key.Namespace, Name: key.Name, Reason: "NotUsable", Message: message,
			Remedy: "name another Secret, or make it anew: kubectl create secret tls, or generic",
		}}
	}
	size := 0
	for _, content := range object.Data {
		size += len(content)
	}
	switch object.Type {
	case corev1.SecretTypeTLS, corev1.SecretTypeOpaque, corev1.SecretTypeBasicAuth, "":
	default:
		return wrong(fmt.Sprintf("it is of type %s, which has neither certificates nor users", object.Type))
	}
	if size > mostSecret {
		return wrong(fmt.Sprintf("it has %d bytes, more than %d: those are neither certificates nor users", size, mostSecret))
	}
	return &model.Secret{SecretKey: key, Content: object.Data}, nil
}

func secretNotRead(key model.SecretKey, err error) []model.Problem {
	if failed := (*url.Error)(nil); errors.As(err, &failed) {
		err = failed.Err
	}
	problem := model.Problem{
		Kind: "Secret", Namespace: key.Namespace, Name: key.Name, Reason: "NotRead",
		Message: fmt.Sprintf("it cannot be read: %v", err),
		Remedy:  "what was known of it stays in force; it is tried again by itself",
	}
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		problem.Remedy = "apply gateway.yaml again: the ClusterRole fairlead-gateway is not as it has it"
	}
	return []model.Problem{problem}
}

// secretNotices is where the watch of Secrets leads. It keeps none.
type secretNotices struct {
	*store[model.SecretKey, string] // of what a watch needs beside
	secrets                         *secrets
}

// secretMark is what a watch tells of a Secret.
type secretMark struct {
	key     model.SecretKey
	version string
}

func markOf(object any) (mark secretMark, ok bool) {
	switch object := object.(type) {
	case secretMark:
		return object, true
	case metav1.Object:
		return secretMark{model.SecretKey{Namespace: object.GetNamespace(), Name: object.GetName()}, object.GetResourceVersion()}, true
	}
	return mark, false
}

// Transformer has a list kept as marks while it comes.
func (n *secretNotices) Transformer() cache.TransformFunc {
	return func(object any) (any, error) {
		if mark, ok := markOf(object); ok {
			return mark, nil
		}
		return object, nil
	}
}

// Add implements cache.ReflectorStore, as do those below.
func (n *secretNotices) Add(object any) error { return n.Update(object) }

// Update has a Secret read that is another than was read.
func (n *secretNotices) Update(object any) error {
	if mark, ok := markOf(object); ok {
		n.secrets.noticed(mark)
	}
	return nil
}

// Delete has it looked for: there may be another of its name.
func (n *secretNotices) Delete(object any) error {
	if mark, ok := markOf(object); ok {
		mark.version = ""
		n.secrets.noticed(mark)
	}
	return nil
}

// Replace has those read that are others than were read.
func (n *secretNotices) Replace(objects []any, _ string) error {
	there := make(map[model.SecretKey]string, len(objects))
	for _, object := range objects {
		if mark, ok := markOf(object); ok {
			there[mark.key] = mark.version
		}
	}
	s := n.secrets
	s.mu.Lock()
	for key := range there {
		s.expect(key)
	}
	for key, state := range s.states {
		if state.version != there[key] {
			s.queue.Add(key)
		}
	}
	s.mu.Unlock()
	n.UpdateResourceVersion("")
	n.synced()
	return nil
}

// isOrdered tells whether a Secret is one of those that are always kept: not the keys of
// accounts, which are read when something is ordered.
func isOrdered(key model.SecretKey) bool {
	return key.Namespace == model.CertificateNamespace &&
		(strings.HasPrefix(key.Name, model.CertificatePrefix) || strings.HasPrefix(key.Name, model.AttemptPrefix))
}

// expect has one waited for that nobody names, and is kept all the same. The caller
// holds the lock.
func (s *secrets) expect(key model.SecretKey) {
	if isOrdered(key) && s.states[key] == nil {
		s.states[key] = &secretState{}
		s.waiting++
	}
}

func (s *secrets) noticed(mark secretMark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if mark.version != "" {
		s.expect(mark.key)
	}
	if state := s.states[mark.key]; state != nil && (state.version != mark.version || !state.answered) {
		s.queue.Add(mark.key)
	}
}

// acceptMetadata asks for no more of objects than what all have.
const acceptMetadata = runtime.ContentTypeProtobuf + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1," +
	runtime.ContentTypeJSON + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

// metadataClient reads the metadata of Kubernetes' core kinds, and nothing else.
func metadataClient(config *rest.Config, transport *http.Client) (rest.Interface, error) {
	config = rest.CopyConfig(config)
	version := corev1.SchemeGroupVersion
	config.APIPath, config.GroupVersion, config.AcceptContentTypes = "/api", &version, acceptMetadata
	config.NegotiatedSerializer = metainternal.Codecs.WithoutConversion()
	return rest.RESTClientForConfigAndClient(config, transport)
}
