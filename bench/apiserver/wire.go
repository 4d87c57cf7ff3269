package apiserver

import (
	"bytes"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// wire is how the objects of a resource are written: protobuf for Kubernetes' own
// kinds, because the agent asks for it, JSON for those of CRDs, which have no other.
type wire struct {
	info   runtime.SerializerInfo // of protobuf; unused for JSON
	custom bool                   // JSON
	typed  bool                   // objects say themselves what they are
}

func newWire(custom bool) (wire, error) {
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		return wire{}, fmt.Errorf("client-go has no serializer for %s", runtime.ContentTypeProtobuf)
	}
	return wire{info: info, custom: custom}, nil
}

func (w wire) contentType(stream bool) string {
	switch {
	case w.custom:
		return runtime.ContentTypeJSON
	case stream:
		return runtime.ContentTypeProtobuf + ";stream=watch"
	default:
		return runtime.ContentTypeProtobuf
	}
}

// object is an object as the body of an answer.
func (w wire) object(version schema.GroupVersion, object runtime.Object) ([]byte, error) {
	if w.custom {
		return json.Marshal(object)
	}
	if w.typed {
		return runtime.Encode(w.info.Serializer, object)
	}
	return runtime.Encode(scheme.Codecs.EncoderForVersion(w.info.Serializer, version), object)
}

// event is an object, as object wrote it, as a frame of a watch.
func (w wire) event(kind watch.EventType, object []byte) ([]byte, error) {
	event := &metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: object}}
	if w.custom {
		frame, err := json.Marshal(event)
		return append(frame, '\n'), err
	}
	var body, frame bytes.Buffer
	if err := w.info.StreamSerializer.Encode(event, &body); err != nil {
		return nil, err
	}
	_, err := w.info.StreamSerializer.Framer.NewFrameWriter(&frame).Write(body.Bytes())
	return frame.Bytes(), err
}
