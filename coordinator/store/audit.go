package store

import (
	"cmp"
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"time"
)

// MaxAudit is how many entries of one trail are kept: the newest.
const MaxAudit = 200

// Entry is one line of an audit trail: who did what, when, from where. It
// never holds a secret or a config var's value.
type Entry struct {
	Seq           int64     `json:"seq"` // from 1, without gaps
	At            time.Time `json:"at"`
	User          string    `json:"user"`                    // email, as it was then
	Action        string    `json:"action"`                  // "Set FOO config vars (v4)"
	From          string    `json:"from,omitempty"`          // address
	Request       string    `json:"request,omitempty"`       // Request-Id
	Authorization string    `json:"authorization,omitempty"` // Authorization.ID of the token
}

// auditRoot lies beside root, so that an entry wakes nobody who waits for
// Changes. A trail is a ring: the entry with number n is at n modulo MaxAudit.
//
//	heads/SUBJECT        number of the newest entry
//	entries/SUBJECT/042  entry
const auditRoot = "/manifold-audit/"

func auditHead(subject string) string  { return auditRoot + "heads/" + subject }
func auditTrail(subject string) string { return auditRoot + "entries/" + subject + "/" }

// Record adds an entry to the trail of a subject, which is an app or a user by
// id. Seq and At are set. It is called after the change it tells of, which a
// kill between the two leaves without an entry.
func (s *Store) Record(ctx context.Context, subject string, e Entry) error {
	turn := &s.trails[crc32.ChecksumIEEE([]byte(subject))%uint32(len(s.trails))]
	turn.Lock() // those who wait here would overtake each other below
	defer turn.Unlock()
	return s.transact(ctx, func(t *tx) error {
		var head int64
		if _, err := t.get(auditHead(subject), &head); err != nil {
			return err
		}
		e.Seq, e.At = head+1, s.stamp()
		return cmp.Or(t.put(auditHead(subject), e.Seq), t.put(fmt.Sprintf("%s%03d", auditTrail(subject), e.Seq%MaxAudit), e))
	})
}

// Audit lists a subject's trail, oldest first.
func (s *Store) Audit(ctx context.Context, subject string) ([]Entry, error) {
	entries, err := list[Entry](ctx, s.engine, auditTrail(subject))
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	return entries, err
}
