package kube

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// message is an object of k8s.io/api.
type message interface {
	runtime.Object
	metav1.Object
	Reset()
	Unmarshal([]byte) error
}

// sparse is how objects of one kind are read that come in thousands: what is kept
// of them is converted as it is decoded, and of protobuf only what the conversion
// reads is decoded at all. A pod is 4 kB on the wire and 150 bytes in the snapshot.
// JSON, and what is of another kind such as an error, is read as client-go does.
//
// It is a serializer of a REST client, which so goes on agreeing with API servers
// on what they send. Objects come out of it as arrivals, but for those of a list in
// JSON.
type sparse[T message, K, V comparable] struct {
	runtime.NegotiatedSerializer // of everything

	kind    schema.GroupVersionKind
	empty   T
	fields  *selection
	convert func(T) converted[K, V]
	reset   func(T) // before another one is decoded into it
}

// arrival is an object that came.
type arrival[K, V comparable] struct {
	converted[K, V]
	// metadata is what reflectors of client-go ask for: name, namespace, resource
	// version, and the annotation of the bookmark that ends a list. It is nil in an
	// arrivals, of whose items they ask nothing.
	metadata *metav1.ObjectMeta
}

// GetObjectMeta implements metav1.ObjectMetaAccessor.
func (a *arrival[K, V]) GetObjectMeta() metav1.Object {
	if a.metadata == nil {
		return nil
	}
	return a.metadata
}

// GetObjectKind implements runtime.Object.
func (a *arrival[K, V]) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements runtime.Object.
func (a *arrival[K, V]) DeepCopyObject() runtime.Object {
	copied := *a
	copied.metadata = a.metadata.DeepCopy() // the rest is immutable
	return &copied
}

// newSparse prepares to read a kind of which the conversion reads these fields, and
// names. An error means that its type has no such field.
func newSparse[T message, K, V comparable](version schema.GroupVersion, empty T, convert func(T) converted[K, V], fields ...string) (*sparse[T, K, V], error) {
	object := reflect.TypeOf(empty).Elem()
	selected, err := selectFields(object, append(fields, "metadata.name", "metadata.namespace",
		"metadata.resourceVersion", "metadata.annotations["+metav1.InitialEventsAnnotationKey+"]")...)
	if err != nil {
		return nil, err
	}
	return &sparse[T, K, V]{
		NegotiatedSerializer: scheme.Codecs.WithoutConversion(),
		kind:                 version.WithKind(object.Name()), empty: empty, fields: selected, convert: convert,
		reset: T.Reset,
	}, nil
}

// sparseClient is a client that reads a kind so.
type sparseClient struct {
	rest.Interface
	list func(io.Reader) (runtime.Object, error) // reads the answer to a request for a list
}

func newSparseClient[T message, K, V comparable](of func() (*sparse[T, K, V], error), config *rest.Config, transport *http.Client) (c sparseClient, err error) {
	s, err := of()
	if err != nil {
		return c, err
	}
	config = rest.CopyConfig(config)
	version := s.kind.GroupVersion()
	config.GroupVersion, config.NegotiatedSerializer = &version, s
	if config.APIPath = "/apis"; version.Group == "" {
		config.APIPath = "/api"
	}
	c.list = s.list
	c.Interface, err = rest.RESTClientForConfigAndClient(config, transport)
	return c, err
}

// SupportedMediaTypes are those of everything. Frames of watches in protobuf are
// not copied.
func (s *sparse[T, K, V]) SupportedMediaTypes() []runtime.SerializerInfo {
	types := slices.Clone(s.NegotiatedSerializer.SupportedMediaTypes()) // which are everybody's
	for i := range types {
		if types[i].MediaType == runtime.ContentTypeProtobuf {
			stream := *types[i].StreamSerializer
			stream.Serializer = frames{stream.Serializer}
			types[i].StreamSerializer = &stream
		}
	}
	return types
}

// DecoderToVersion is called for each request.
func (s *sparse[T, K, V]) DecoderToVersion(decoder runtime.Decoder, version runtime.GroupVersioner) runtime.Decoder {
	return &sparseDecoder[T, K, V]{
		sparse: s, everything: s.NegotiatedSerializer.DecoderToVersion(decoder, version), object: s.empty.DeepCopyObject().(T),
	}
}

// sparseDecoder reads the answer to one request, in one goroutine.
type sparseDecoder[T message, K, V comparable] struct {
	*sparse[T, K, V]
	everything runtime.Decoder

	object T      // each is decoded into it, and nothing of it is kept
	buffer []byte // what was cut from the wire
}

// Decode implements runtime.Decoder.
func (d *sparseDecoder[T, K, V]) Decode(content []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if into == nil && bytes.HasPrefix(content, []byte(magic)) {
		kind, raw, err := openEnvelope(content[len(magic):])
		if err != nil {
			return nil, nil, err
		}
		if kind == d.kind {
			if err := d.read(raw); err != nil {
				return nil, &d.kind, err
			}
			return d.arrived(d.object), &d.kind, nil
		}
	}
	object, kind, err := d.everything.Decode(content, defaults, into)
	if whole, ok := object.(T); ok && into == nil && err == nil {
		object = d.arrived(whole)
	}
	return object, kind, err
}

// read makes d.object that of some protobuf.
func (d *sparseDecoder[T, K, V]) read(raw []byte) (err error) {
	d.reset(d.object)
	if d.buffer, err = d.fields.cut(d.buffer[:0], raw); err == nil {
		err = d.object.Unmarshal(d.buffer)
	}
	if err != nil {
		return fmt.Errorf("read a %s: %w", d.kind.Kind, err)
	}
	return nil
}

// arrived converts what a watch brought.
func (d *sparseDecoder[T, K, V]) arrived(object T) *arrival[K, V] {
	metadata := &metav1.ObjectMeta{Name: object.GetName(), Namespace: object.GetNamespace(), ResourceVersion: object.GetResourceVersion()}
	if _, ok := object.GetAnnotations()[metav1.InitialEventsAnnotationKey]; ok {
		metadata.Annotations = object.GetAnnotations()
	}
	return &arrival[K, V]{d.convert(object), metadata}
}

// magic is what all of Kubernetes' protobuf begins with, but for the frames of
// watches. A runtime.Unknown follows.
const magic = "k8s\x00"

// openEnvelope returns what a runtime.Unknown holds, without copying it. Its
// fields are numbered in k8s.io/apimachinery/pkg/runtime/generated.proto.
func openEnvelope(unknown []byte) (kind schema.GroupVersionKind, raw []byte, err error) {
	var version, name string
	err = eachBytes(unknown, func(number protowire.Number, value []byte) error {
		switch number {
		case 1:
			return eachBytes(value, func(number protowire.Number, value []byte) error {
				switch number {
				case 1:
					version = string(value)
				case 2:
					name = string(value)
				}
				return nil
			})
		case 2:
			raw = value
		}
		return nil
	})
	if err != nil {
		return kind, nil, fmt.Errorf("read the envelope of an object: %w", err)
	}
	return schema.FromAPIVersionAndKind(version, name), raw, nil
}

// frames reads the frames of a watch in protobuf, and nothing else. A frame is
// valid until the next one is read, which is how client-go uses it.
type frames struct{ runtime.Serializer }

// Decode implements runtime.Decoder. The fields of a WatchEvent are numbered in
// k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto; that of its RawExtension is
// in pkg/runtime.
func (f frames) Decode(content []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	event, ok := into.(*metav1.WatchEvent)
	if !ok {
		return f.Serializer.Decode(content, defaults, into)
	}
	*event = metav1.WatchEvent{}
	err := eachBytes(content, func(number protowire.Number, value []byte) error {
		switch number {
		case 1:
			event.Type = string(value)
		case 2:
			return eachBytes(value, func(number protowire.Number, value []byte) error {
				if number == 1 {
					event.Object.Raw = value
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read a frame of a watch: %w", err)
	}
	return event, &schema.GroupVersionKind{}, nil
}

// eachBytes calls do for each field of a message, all of which are strings, bytes
// or messages; of others that may come one day it skips.
func eachBytes(message []byte, do func(protowire.Number, []byte) error) error {
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return protowire.ParseError(tag)
		}
		size := protowire.ConsumeFieldValue(number, kind, message[tag:])
		if size < 0 {
			return protowire.ParseError(size)
		}
		if value, n := protowire.ConsumeBytes(message[tag:]); kind == protowire.BytesType && n == size {
			if err := do(number, value); err != nil {
				return err
			}
		}
		message = message[tag+size:]
	}
	return nil
}
