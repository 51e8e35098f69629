package isolation

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The firewall is one table named after the instance, made anew in one
// transaction whenever the agent starts. It knows dynos by the names of their
// links and the pool, never one by one, so starting a dyno does not touch it:
//
//	forward      dyno → dyno                      drop
//	             dyno → link-local (metadata)     drop
//	             dyno, source not in the pool     drop (rp_filter holds it to its own)
//	             dyno, IPv6                       drop
//	             any → dyno, not an answer        drop
//	input        dyno → host, not an answer       drop
//	postrouting  pool → beyond the links          masquerade
//
// Routers on this host reach dynos through output, which is left alone.
func (cfg Config) applyFirewall() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Name: cfg.Instance, Family: nftables.TableFamilyINet}
	c.AddTable(table) // so that the delete finds one
	c.DelTable(table)
	c.AddTable(table)
	chain := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Name: name, Table: table, Type: typ, Hooknum: hook, Priority: priority})
	}
	forward := chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	input := chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	postrouting := chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)

	rule := func(chain *nftables.Chain, parts ...[]expr.Any) {
		var all []expr.Any
		for _, p := range parts {
			all = append(all, p...)
		}
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: all})
	}
	from, to := cfg.link(expr.MetaKeyIIFNAME, expr.CmpOpEq), cfg.link(expr.MetaKeyOIFNAME, expr.CmpOpEq)
	inPool := cfg.source(expr.CmpOpEq)
	drop, accept := verdict(expr.VerdictDrop), verdict(expr.VerdictAccept)

	rule(forward, from, to, drop)
	rule(forward, from, family(unix.NFPROTO_IPV6), drop)
	rule(forward, from, cfg.source(expr.CmpOpNeq), drop)
	rule(forward, from, destination([4]byte{169, 254}, [4]byte{255, 255}), drop)
	rule(forward, to, answers(), accept)
	rule(forward, to, drop)
	rule(input, from, answers(), accept)
	rule(input, from, drop)
	rule(postrouting, inPool, cfg.link(expr.MetaKeyOIFNAME, expr.CmpOpNeq), []expr.Any{&expr.Masq{}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("load firewall table %s: %w", cfg.Instance, err)
	}
	return nil
}

// removeFirewall removes our table, if there is one.
func (cfg Config) removeFirewall() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	c.DelTable(&nftables.Table{Name: cfg.Instance, Family: nftables.TableFamilyINet})
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove firewall table %s: %w", cfg.Instance, err)
	}
	return nil
}

// link matches packets by whether the link's name begins with ours.
func (cfg Config) link(key expr.MetaKey, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: []byte(cfg.linkPrefix())}, // shorter than a name: a prefix
	}
}

func family(proto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
	}
}

// source matches IPv4 packets by whether their source is in the pool.
func (cfg Config) source(op expr.CmpOp) []expr.Any {
	base := cfg.Pool.Addr().As4()
	mask := binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - cfg.Pool.Bits()))
	return v4(12, mask, base[:], op)
}

func destination(base, mask [4]byte) []expr.Any { return v4(16, mask[:], base[:], expr.CmpOpEq) }

// v4 matches a masked address at offset in an IPv4 header.
func v4(offset uint32, mask, base []byte, op expr.CmpOp) []expr.Any {
	return append(family(unix.NFPROTO_IPV4),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: base},
	)
}

// answers matches packets of connections that are open already.
func answers() []expr.Any {
	states := expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(states), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }
