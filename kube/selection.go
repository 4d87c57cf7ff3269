package kube

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// selection is the part of a protobuf message that is wanted. What is on the wire
// is cut down to it, so that the types of k8s.io/api decode the rest as if there
// had never been more: what a field means is known to them alone.
type selection struct {
	whole  bool
	fields []*selection // by number; nil: not wanted
	keys   []string     // of a map: those of the entries that are wanted
}

// selectFields makes a selection of a message of k8s.io/api from paths such as
// spec.nodeName, of fields as generated.proto names them: the protobuf tags of the
// type have their numbers. metadata.annotations[a] is one entry of a map. An error
// means that there is no such field.
func selectFields(message reflect.Type, paths ...string) (*selection, error) {
	all := &selection{}
	for _, path := range paths {
		rest, key, entry := strings.Cut(strings.TrimSuffix(path, "]"), "[")
		at, of := all, message
		for name := range strings.SplitSeq(rest, ".") {
			number, inner, err := findField(of, name)
			if err != nil {
				return nil, fmt.Errorf("select %s of %s: %w", path, message, err)
			}
			at, of = at.field(number), inner
		}
		if entry {
			at.keys = append(at.keys, key)
		} else {
			at.whole = true
		}
	}
	return all, nil
}

// field is the selection in a field, which is made if it is not there.
func (s *selection) field(number protowire.Number) *selection {
	for int(number) >= len(s.fields) {
		s.fields = append(s.fields, nil)
	}
	if s.fields[number] == nil {
		s.fields[number] = &selection{}
	}
	return s.fields[number]
}

// findField returns the number of a field, and the type of a message in it.
func findField(message reflect.Type, name string) (protowire.Number, reflect.Type, error) {
	if message.Kind() != reflect.Struct {
		return 0, nil, fmt.Errorf("%s is no message that has a field %s", message, name)
	}
	for i := range message.NumField() {
		// Such as bytes,10,opt,name=nodeName.
		tag := strings.Split(message.Field(i).Tag.Get("protobuf"), ",")
		if !slices.Contains(tag, "name="+name) {
			continue
		}
		number, err := strconv.ParseInt(tag[1], 10, 32)
		if err != nil {
			return 0, nil, fmt.Errorf("the number of field %s: %w", name, err)
		}
		inner := message.Field(i).Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		return protowire.Number(number), inner, nil
	}
	return 0, nil, fmt.Errorf("%s has no field %s", message, name)
}

// cut appends the selection of a message to a buffer and returns it. What is not
// wanted is skipped by its length, not read. An error means that the message is
// damaged.
func (s *selection) cut(to, message []byte) ([]byte, error) {
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return nil, fmt.Errorf("a field: %w", protowire.ParseError(tag))
		}
		size := protowire.ConsumeFieldValue(number, kind, message[tag:])
		if size < 0 {
			return nil, fmt.Errorf("field %d: %w", number, protowire.ParseError(size))
		}
		field := message[:tag+size]
		message = message[tag+size:]
		if int(number) >= len(s.fields) || s.fields[number] == nil {
			continue
		}
		var err error
		if to, err = s.fields[number].cutField(to, field, tag, kind); err != nil {
			return nil, fmt.Errorf("field %d: %w", number, err)
		}
	}
	return to, nil
}

// cutField appends the selection of one field of a type on the wire, which begins
// with a tag of so many bytes.
func (s *selection) cutField(to, field []byte, tag int, kind protowire.Type) ([]byte, error) {
	if s.whole {
		return append(to, field...), nil
	}
	inner, size := protowire.ConsumeBytes(field[tag:])
	if kind != protowire.BytesType || size < 0 {
		return nil, fmt.Errorf("it is no message, but of wire type %d", kind)
	}
	if s.keys != nil {
		key, err := entryKey(inner)
		if err != nil || !slices.Contains(s.keys, string(key)) {
			return to, err
		}
		return append(to, field...), nil
	}
	to = append(to, field[:tag]...)
	at := len(to)
	to, err := s.cut(to, inner)
	if err != nil {
		return nil, err
	}
	var length [10]byte
	return slices.Insert(to, at, protowire.AppendVarint(length[:0], uint64(len(to)-at))...), nil
}

// entryKey is the key of an entry of a map: a message with field 1, its key, and
// field 2, its value.
func entryKey(entry []byte) (key []byte, err error) {
	for len(entry) > 0 {
		number, kind, tag := protowire.ConsumeTag(entry)
		if tag < 0 {
			return nil, protowire.ParseError(tag)
		}
		size := protowire.ConsumeFieldValue(number, kind, entry[tag:])
		if size < 0 {
			return nil, protowire.ParseError(size)
		}
		if number == 1 {
			if kind != protowire.BytesType {
				return nil, fmt.Errorf("a key is no string, but of wire type %d", kind)
			}
			key, _ = protowire.ConsumeBytes(entry[tag:])
		}
		entry = entry[tag+size:]
	}
	return key, nil
}
