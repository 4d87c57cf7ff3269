package htpasswd

import (
	"strings"
	"testing"
	"time"
)

// file is what openssl passwd and htpasswd have written.
const file = `# users
apr1:$apr1$abcdefgh$sAT51V/DnRGRtxDJCf7lm/
md5:$1$xyz$r2NBTbk2gPEph8n88/DeR1
long:$apr1$q$JU8YxCcsIFupYhaTrai9o0

sha:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=
bcrypt:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC
des:rqXexS6ZhobKA
bomb:$2y$31$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC
nohash
apr1:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=
`

func TestUsers(t *testing.T) {
	users, wrong := Parse([]byte(file))
	var said []string
	for _, err := range wrong {
		said = append(said, err.Error())
	}
	text := strings.Join(said, "\n")
	for _, want := range []string{"user des: what follows its name is no hash", "user bomb: bcrypt of cost 31 takes too long", "line 10: want NAME:HASH"} {
		if !strings.Contains(text, want) {
			t.Errorf("of what is wrong it says\n%s\nwant %s", text, want)
		}
	}
	for _, c := range []struct {
		name, password string
		want           bool
	}{
		{"apr1", "secret word", true}, {"apr1", "password", false}, {"md5", "a", true}, {"md5", "", false},
		{"long", "a longer password than sixteen bytes", true}, {"long", "a longer password than sixteen byte", false},
		{"sha", "password", true}, {"sha", "Password", false}, {"bcrypt", "myPassword", true}, {"bcrypt", "mypassword", false},
		{"des", "myPassword", false}, {"bomb", "myPassword", false}, {"", "", false}, {"apr1s", "ecret word", false},
	} {
		for range 2 { // the second time from memory
			if got := users.Check(c.name, c.password); got != c.want {
				t.Errorf("%s with %q: %v, want %v", c.name, c.password, got, c.want)
			}
		}
	}
}

// TestSalted: the salt is what follows the sum.
func TestSalted(t *testing.T) {
	users, _ := Parse(nil)
	if err := users.Add("a", "{SSHA}yI6cZwQadOA1e+/f+T+H3eCQQhRzYWx0"); err != nil {
		t.Fatal(err)
	}
	if !users.Check("a", "password") || users.Check("a", "passwor") {
		t.Error("the password is not the one")
	}
}

// TestKnown: what was right is not hashed again, and what was wrong is.
func TestKnown(t *testing.T) {
	users, _ := Parse([]byte(file))
	users.Check("bcrypt", "myPassword")
	users.busy <- struct{}{}
	users.busy <- struct{}{} // nobody can hash
	done := make(chan bool)
	go func() { done <- users.Check("bcrypt", "myPassword") }()
	select {
	case right := <-done:
		if !right {
			t.Error("it is not right any more")
		}
	case <-time.After(5 * time.Second):
		t.Error("it is hashed again")
	}
}
