package model

import (
	"encoding/hex"
	"hash/fnv"
	"strings"
)

// UID tells apart what had the same name one after the other. The API server's
// are UUIDs (RFC 9562), and it is their 16 bytes: as text, those of all pods of a
// large cluster would be a sixth of what is kept of them. The zero value is none.
type UID [16]byte

// UIDOf reads a UUID. Any other text, which no API server makes, gets a UID of its
// own. Empty gives the zero UID.
func UIDOf(text string) (uid UID) {
	if text == "" {
		return uid
	}
	if len(text) == 36 && text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-' {
		if _, err := hex.Decode(uid[:], []byte(strings.ReplaceAll(text, "-", ""))); err == nil {
			return uid
		}
	}
	sum := fnv.New128a()
	_, _ = sum.Write([]byte(text)) // cannot fail
	return UID(sum.Sum(nil))
}

// String is the UUID, and empty for none.
func (u UID) String() string {
	if u == (UID{}) {
		return ""
	}
	text := hex.EncodeToString(u[:])
	return strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:]}, "-")
}
