package model

import (
	"bytes"
	"maps"
)

// SecretKey names a Secret.
type SecretKey struct{ Namespace, Name string }

func (k SecretKey) String() string { return k.Namespace + "/" + k.Name }

// Secret is one, with what it has. No snapshot has any, and no plan: who serves
// requests reads them beside.
type Secret struct {
	SecretKey
	Content map[string][]byte
}

// Equal tells whether nothing differs.
func (s *Secret) Equal(other *Secret) bool {
	return s.SecretKey == other.SecretKey && maps.EqualFunc(s.Content, other.Content, bytes.Equal)
}
