package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/fairlead-net/fairlead/model"
)

// reflection is what is watched and where it goes.
type reflection[K, V comparable] struct {
	client    cache.Getter
	resource  string
	namespace string                                  // empty: all
	name      string                                  // empty: all
	label     string                                  // selector, empty: all
	object    runtime.Object                          // of the type that is expected
	list      func(io.Reader) (runtime.Object, error) // reads a list in the place of client-go; may be nil
	missing   func()                                  // called if the API server does not know the resource; may be nil
	store     *store[K, V]
	into      cache.ReflectorStore // in the place of store, which then has the rest; may be nil
	turns     *turns               // nil: nobody else watches it
	absent    absence              // of the resource, if missing is set
}

// watch returns a function that watches until its context ends.
func watch[K, V comparable](r *reflection[K, V]) func(context.Context) {
	inner := cache.NewFilteredListWatchFromClient(r.client, r.resource, r.namespace, func(options *metav1.ListOptions) {
		options.LabelSelector = r.label
		if r.name != "" {
			options.FieldSelector = "metadata.name=" + r.name
		}
	})
	watched := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (list runtime.Object, err error) {
			ask := inner.ListWithContext
			if r.list != nil {
				ask = r.listSparsely
			}
			if err := r.absent.wait(ctx); err != nil {
				return nil, err
			}
			err = r.turns.ask(ctx, true, func() (err error) {
				list, err = ask(ctx, options)
				r.observe(ctx, err)
				return err
			})
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (events apiwatch.Interface, err error) {
			if err := r.absent.wait(ctx); err != nil {
				return nil, err
			}
			again := options.SendInitialEvents != nil && *options.SendInitialEvents
			err = r.turns.ask(ctx, again, func() error {
				return r.turns.open(ctx, func() (err error) {
					events, err = inner.WatchWithContext(ctx, options)
					r.observe(ctx, err)
					return err
				})
			})
			if err == nil {
				r.turns.began(options.TimeoutSeconds)
			}
			return events, err
		},
	}
	// client-go logs on its own; here errors become Problems instead.
	var quiet klog.Logger
	into := r.into
	if into == nil {
		into = r.store
	}
	reflector := cache.NewReflectorWithOptions(watched, r.object, into,
		cache.ReflectorOptions{Name: r.resource, Logger: &quiet})
	return func(ctx context.Context) { reflector.RunWithContext(klog.NewContext(ctx, quiet)) }
}

// listSparsely asks for a list as client-go does.
func (r *reflection[K, V]) listSparsely(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	options.LabelSelector = r.label
	body, err := r.client.Get().Namespace(r.namespace).Resource(r.resource).
		VersionedParams(&options, metav1.ParameterCodec).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return r.list(body)
}

// observe turns the outcome of a request into a Problem, or takes it back.
func (r *reflection[K, V]) observe(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	missing := r.missing != nil && IsNotFound(err)
	if r.absent.noted(missing); missing {
		r.missing()
		err = nil
	}
	r.store.problems.watches.asked(r.store.kind, err)
	// By kind: there are several watches of one resource.
	r.store.problems.set("Watch", r.store.kind, notWatched(r.resource, err))
}

func notWatched(resource string, err error) []model.Problem {
	if err == nil {
		return nil
	}
	// The URL of a watch has a random timeout in it, and would make each try
	// another problem.
	if failed := (*url.Error)(nil); errors.As(err, &failed) {
		err = failed.Err
	}
	problem := model.Problem{
		Kind: "APIServer", Name: resource, Reason: "NotWatched",
		Message: fmt.Sprintf("%s cannot be watched: %v", resource, err),
		Remedy:  "what was known of them stays in force; it is tried again by itself",
	}
	var unreachable *UnreachableError
	switch {
	case errors.As(err, &unreachable):
		problem.Name, problem.Reason = "kubernetes", "Unreachable"
		problem.Message = unreachable.Error()
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		problem.Reason = "Forbidden"
		problem.Remedy = "apply Fairlead's manifest again: its ServiceAccounts and roles are not as it has them"
	}
	return []model.Problem{problem}
}
