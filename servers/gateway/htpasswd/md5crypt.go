package htpasswd

import (
	"crypto/md5"
	"crypto/subtle"
)

// md5crypt is a hash of FreeBSD's crypt(3) of 1994, or Apache's of it, which
// differ in their magic: $1$ and $apr1$.
type md5crypt struct{ magic, salt, sum string }

func (m md5crypt) is(password string) bool {
	return subtle.ConstantTimeCompare([]byte(m.of(password)), []byte(m.sum)) == 1
}

func (m md5crypt) cost() int { return 1 }

// rounds make it slow, by the means of its time.
const rounds = 1000

func (m md5crypt) of(password string) string {
	inner := md5.Sum([]byte(password + m.salt + password))
	text := []byte(password + m.magic + m.salt)
	for left := len(password); left > 0; left -= md5.Size {
		text = append(text, inner[:min(left, md5.Size)]...)
	}
	for n := len(password); n > 0; n >>= 1 {
		if n&1 == 1 {
			text = append(text, 0)
		} else {
			text = append(text, password[0])
		}
	}
	sum := md5.Sum(text)
	for round := range rounds {
		text = text[:0]
		if round&1 == 1 {
			text = append(text, password...)
		} else {
			text = append(text, sum[:]...)
		}
		if round%3 != 0 {
			text = append(text, m.salt...)
		}
		if round%7 != 0 {
			text = append(text, password...)
		}
		if round&1 == 1 {
			text = append(text, sum[:]...)
		} else {
			text = append(text, password...)
		}
		sum = md5.Sum(text)
	}
	return encode(sum)
}

// encode writes a sum in the order and with the letters of crypt(3).
func encode(sum [md5.Size]byte) string {
	const letters = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	var out []byte
	put := func(bits uint32, count int) {
		for range count {
			out = append(out, letters[bits&63])
			bits >>= 6
		}
	}
	for i := range 5 {
		last := i + 12
		if i == 4 {
			last = 5
		}
		put(uint32(sum[i])<<16|uint32(sum[i+6])<<8|uint32(sum[last]), 4)
	}
	put(uint32(sum[11]), 2)
	return string(out)
}
