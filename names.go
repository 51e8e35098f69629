package manifold

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds on what a stranger may send. They are part of the outside contract.
const (
	MaxAppName     = 30        // bytes, as Heroku's API has it
	MaxProcessType = 128       // bytes
	MaxQuantity    = 100       // dynos of one type; Heroku's default cap for small sizes
	MaxConfigBytes = 64 << 10  // keys and values of one app together
	MaxConfigVars  = 1000      // entries of one app
	MaxCommand     = 32 << 10  // bytes of one command line
	MaxProcfile    = 256 << 10 // bytes
)

// InvalidError says which input was refused and how to mend it. Its text is
// meant for the person who typed it. The API answers it with 422.
type InvalidError struct {
	What string // "app name", "quantity" …
	Why  string // a clause: "must be …"
}

func (e *InvalidError) Error() string { return e.What + " " + e.Why }

func invalid(what, why string, args ...any) error {
	return &InvalidError{What: what, Why: fmt.Sprintf(why, args...)}
}

// CheckAppName accepts [a-z][a-z0-9-]{1,28}[a-z0-9], so that a name is also a
// DNS label and a path element without quoting.
func CheckAppName(name string) error {
	const rule = "must start with a lower-case letter, hold only lower-case letters, digits and dashes, not end with a dash, and be 3 to 30 characters long"
	if len(name) < 3 || len(name) > MaxAppName || !lower(name[0]) || name[len(name)-1] == '-' {
		return invalid("Name", rule)
	}
	for i := range len(name) {
		if c := name[i]; !lower(c) && !digit(c) && c != '-' {
			return invalid("Name", rule)
		}
	}
	return nil
}

// CheckProcessType accepts [A-Za-z0-9_-]{1,128}. A dot is not allowed: it
// parts the type from the number in a dyno's name.
func CheckProcessType(name string) error {
	if name == "" || len(name) > MaxProcessType {
		return invalid("Process type", "must be 1 to %d characters long", MaxProcessType)
	}
	for i := range len(name) {
		if c := name[i]; !letter(c) && !digit(c) && c != '_' && c != '-' {
			return invalid("Process type", "%q may hold only letters, digits, '-' and '_'", name)
		}
	}
	return nil
}

// CheckConfigVar accepts one config var. Keys are shell names without a
// leading "__"; values are UTF-8 without NUL, since no environment can carry
// one (execve(2)).
func CheckConfigVar(key, value string) error {
	if key == "" || digit(key[0]) || strings.HasPrefix(key, "__") || len(key) > 256 {
		return invalid("Config var", "name %q must start with a letter or one underscore and be at most 256 characters long", clip(key))
	}
	for i := range len(key) {
		if c := key[i]; !letter(c) && !digit(c) && c != '_' {
			return invalid("Config var", "name %q may hold only letters, digits and underscores", clip(key))
		}
	}
	if strings.ContainsRune(value, 0) || !utf8.ValidString(value) {
		return invalid("Config var", "%s must be valid UTF-8 without NUL bytes", key)
	}
	if key == HealthCheckVar {
		_, err := ParseHealthCheck(value)
		return err
	}
	return nil
}

// CheckConfig accepts a whole set of config vars within MaxConfigBytes and
// MaxConfigVars.
func CheckConfig(vars map[string]string) error {
	if len(vars) > MaxConfigVars {
		return invalid("Config vars", "may be at most %d in number", MaxConfigVars)
	}
	total := 0
	for k, v := range vars {
		if err := CheckConfigVar(k, v); err != nil {
			return err
		}
		total += len(k) + len(v)
	}
	if total > MaxConfigBytes {
		return invalid("Config vars", "may be at most %d KB together (these are %d bytes)", MaxConfigBytes>>10, total)
	}
	return nil
}

// Quantity is a wish for a number of dynos: absolute ("2") or relative to
// what is there ("+1", "-1").
type Quantity struct {
	N        int
	Relative bool
}

// ParseQuantity reads "2", "+1" or "-1". A bare negative number is relative,
// as in the heroku CLI's ps:scale web-1.
func ParseQuantity(s string) (Quantity, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n > MaxQuantity || n < -MaxQuantity || len(s) > 8 {
		return Quantity{}, invalid("Quantity", "%q must be a number from 0 to %d, or +N or -N", clip(s), MaxQuantity)
	}
	return Quantity{N: n, Relative: s[0] == '+' || s[0] == '-'}, nil
}

// Of applies q to the present quantity. The result stays within 0 and
// MaxQuantity or is refused.
func (q Quantity) Of(present int) (int, error) {
	n := q.N
	if q.Relative {
		n = max(present+q.N, 0)
	}
	if n < 0 || n > MaxQuantity {
		return 0, invalid("Quantity", "must be from 0 to %d", MaxQuantity)
	}
	return n, nil
}

// DynoName is "web.1": a process type and a number from 1 up.
func DynoName(typ string, n int) string { return typ + "." + strconv.Itoa(n) }

// SplitDynoName reads what DynoName wrote.
func SplitDynoName(name string) (typ string, n int, err error) {
	typ, num, ok := strings.Cut(name, ".")
	if ok {
		n, err = strconv.Atoi(num)
	}
	if !ok || err != nil || n < 1 || CheckProcessType(typ) != nil || DynoName(typ, n) != name {
		return "", 0, invalid("Dyno name", "%q must look like web.1", clip(name))
	}
	return typ, n, nil
}

func lower(c byte) bool  { return 'a' <= c && c <= 'z' }
func letter(c byte) bool { return lower(c | 0x20) }
func digit(c byte) bool  { return '0' <= c && c <= '9' }

// clip keeps a stranger's text short in an error message.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
