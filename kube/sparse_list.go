package kube

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

// arrivals is a list of what came.
type arrivals[K, V comparable] struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []*arrival[K, V] // that are immutable
}

// DeepCopyObject implements runtime.Object.
func (a *arrivals[K, V]) DeepCopyObject() runtime.Object {
	copied := *a
	return &copied
}

// list reads a list as it comes. API servers that do not send initial events, those
// before Kubernetes 1.32 and 1.33, send all objects in one message: 200 MB of
// 50,000 pods, of which no more than one is held here at a time.
func (s *sparse[T, K, V]) list(body io.Reader) (runtime.Object, error) {
	in := bufio.NewReaderSize(body, 64<<10)
	if begin, _ := in.Peek(len(magic)); string(begin) != magic {
		content, err := io.ReadAll(in)
		if err != nil {
			return nil, fmt.Errorf("read a list: %w", err)
		}
		return runtime.Decode(scheme.Codecs.UniversalDeserializer(), content)
	}
	_, _ = in.Discard(len(magic)) // it is there
	decoder := &sparseDecoder[T, K, V]{sparse: s, object: s.empty.DeepCopyObject().(T)}
	list := &arrivals[K, V]{}
	// The message is a runtime.Unknown; see openEnvelope.
	var header []byte
	complete := false
	err := (&wireReader{in: in, left: -1}).each(func(number protowire.Number, value *wireReader) (err error) {
		switch number {
		case 1:
			header, err = value.all(nil)
		case 2:
			kind, _, err := openEnvelope(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), header))
			if err != nil || kind != s.kind.GroupVersion().WithKind(s.kind.Kind+"List") {
				return errors.Join(err, fmt.Errorf("it is a %s", kind))
			}
			complete = true
			return decoder.items(list, value)
		}
		return err
	})
	if err == nil && !complete {
		err = io.ErrUnexpectedEOF // an empty list would have metadata
	}
	if err != nil {
		return nil, fmt.Errorf("read a list of %s objects: %w", s.kind.Kind, err)
	}
	return list, nil
}

// items reads the inside of a list. All lists of Kubernetes have a ListMeta in
// field 1 and their items in field 2.
func (d *sparseDecoder[T, K, V]) items(list *arrivals[K, V], in *wireReader) error {
	var buffer []byte
	return in.each(func(number protowire.Number, value *wireReader) (err error) {
		if number > 2 {
			return nil
		}
		if buffer, err = value.all(buffer[:0]); err != nil {
			return err
		}
		if number == 1 {
			return list.ListMeta.Unmarshal(buffer)
		}
		if err := d.read(buffer); err != nil {
			return err
		}
		list.Items = append(list.Items, &arrival[K, V]{converted: d.convert(d.object)})
		return nil
	})
}

// wireReader reads a protobuf message whose fields are messages, strings or bytes.
type wireReader struct {
	in   *bufio.Reader
	left int64 // bytes of the message; negative: until the end of in
}

// largestObject is what client-go allows for one in a watch, in bytes.
const largestObject = 16 << 20

// ReadByte implements io.ByteReader, within the message.
func (r *wireReader) ReadByte() (byte, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	b, err := r.in.ReadByte()
	if err == nil {
		r.left--
	} else if errors.Is(err, io.EOF) && r.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// all appends what is left of the message.
func (r *wireReader) all(to []byte) ([]byte, error) {
	if r.left < 0 || r.left > largestObject {
		return to, fmt.Errorf("an object of %d bytes", r.left)
	}
	from := len(to)
	to = append(to, make([]byte, r.left)...)
	n, err := io.ReadFull(r.in, to[from:])
	r.left -= int64(n)
	return to, err
}

// each calls do for each field. What do does not read of it is skipped.
func (r *wireReader) each(do func(protowire.Number, *wireReader) error) error {
	for {
		tag, err := binary.ReadUvarint(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		number, kind := protowire.DecodeTag(tag)
		if number < 1 || kind != protowire.BytesType {
			return fmt.Errorf("field %d is of wire type %d", number, kind)
		}
		size, err := binary.ReadUvarint(r)
		if err != nil {
			return fmt.Errorf("field %d: %w", number, err)
		}
		if size > math.MaxInt64 || r.left >= 0 && size > uint64(r.left) {
			return fmt.Errorf("field %d: %w", number, io.ErrUnexpectedEOF)
		}
		value := &wireReader{r.in, int64(size)}
		if err := do(number, value); err != nil {
			return err
		}
		for value.left > 0 {
			n, err := r.in.Discard(int(min(value.left, largestObject)))
			value.left -= int64(n)
			if err != nil {
				return err
			}
		}
		if r.left >= 0 {
			r.left -= int64(size)
		}
	}
}
