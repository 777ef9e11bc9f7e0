"""All that makes a schema, read from PostgreSQL's catalogs: two databases with the same are the same to whoever uses them.

Objects go by their names and not by their numbers. The order of columns counts, since an upgrade can only add at the end; the order of
all else does not.
"""

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import sql

Catalog = dict[str, list[str]]

OURS = ["dbos", "engine", "app"]
ROWS: LiteralString = "select to_jsonb(found)::text from ({}) found"

QUERIES: dict[str, LiteralString] = {
    "schema": "select n.nspname, n.nspowner::regrole::text as owner, n.nspacl::text[] from pg_namespace n where n.nspname = any (%(ours)s)",
    # A net under all that follows: of whatever kind, it is in here by its name.
    "object": """
        select (pg_identify_object(d.classid, d.objid, 0)).type, (pg_identify_object(d.classid, d.objid, 0)).identity
          from pg_depend d join pg_namespace n on d.refclassid = 'pg_namespace'::regclass and d.refobjid = n.oid
         where n.nspname = any (%(ours)s) and d.objsubid = 0
    """,
    "relation": """
        select n.nspname, c.relname, c.relkind, c.relpersistence, c.reloptions, c.relrowsecurity, c.relforcerowsecurity, c.relreplident,
               c.relispartition, c.relispopulated, c.relhassubclass, pg_get_expr(c.relpartbound, c.oid) as bound, a.amname, s.spcname,
               c.relowner::regrole::text as owner, c.relacl::text[]
          from pg_class c join pg_namespace n on n.oid = c.relnamespace
          left join pg_am a on a.oid = c.relam left join pg_tablespace s on s.oid = c.reltablespace
         where n.nspname = any (%(ours)s)
    """,
    "column": """
        select n.nspname, c.relname, row_number() over (partition by c.oid order by a.attnum) as place, a.attname,
               format_type(a.atttypid, a.atttypmod) as type, a.attnotnull, a.attidentity, a.attgenerated,
               pg_get_expr(d.adbin, d.adrelid) as default, o.collname, a.attstorage, a.attcompression, a.attstattarget, a.attoptions,
               a.attacl::text[], a.attislocal, a.attinhcount
          from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
          left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
          left join pg_collation o on o.oid = a.attcollation
         where n.nspname = any (%(ours)s) and a.attnum > 0 and not a.attisdropped and c.relkind not in ('i', 'I')
    """,
    "constraint": """
        select n.nspname, k.conrelid::regclass::text as on_table, k.contypid::regtype::text as on_type, k.conname, k.contype,
               pg_get_constraintdef(k.oid) as definition, k.convalidated, k.condeferrable, k.condeferred, k.connoinherit
          from pg_constraint k join pg_namespace n on n.oid = k.connamespace where n.nspname = any (%(ours)s)
    """,
    "index": """
        select n.nspname, pg_get_indexdef(i.indexrelid) as definition, i.indisvalid, i.indisready, i.indislive, i.indisunique,
               i.indisprimary, i.indisclustered, i.indisreplident, i.indimmediate
          from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = any (%(ours)s)
    """,
    "function": """
        select n.nspname, p.oid::regprocedure::text as signature, p.prokind,
               case when p.prokind <> 'a' then pg_get_functiondef(p.oid) end as definition,
               p.proowner::regrole::text as owner, p.proacl::text[]
          from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = any (%(ours)s)
    """,
    "trigger": """
        select pg_get_triggerdef(t.oid) as definition, t.tgenabled
          from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = any (%(ours)s) and not t.tgisinternal
    """,
    "view": """
        select n.nspname, c.relname, pg_get_viewdef(c.oid) as definition
          from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = any (%(ours)s) and c.relkind in ('v', 'm')
    """,
    "rule": """
        select pg_get_ruledef(r.oid) as definition, r.ev_enabled
          from pg_rewrite r join pg_class c on c.oid = r.ev_class join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = any (%(ours)s) and r.rulename <> '_RETURN'
    """,
    "sequence": """
        select n.nspname, c.relname, s.seqtypid::regtype::text as type, s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache,
               s.seqcycle, (select d.refobjid::regclass::text || '.' || d.refobjsubid || ' ' || d.deptype::text from pg_depend d
                             where d.objid = c.oid and d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i')) as belongs_to
          from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = any (%(ours)s)
    """,
    "type": """
        select n.nspname, t.typname, t.typtype, t.typnotnull, t.typdefault, format_type(t.typbasetype, t.typtypmod) as base,
               (select array_agg(e.enumlabel order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid) as labels,
               t.typacl::text[]
          from pg_type t join pg_namespace n on n.oid = t.typnamespace where n.nspname = any (%(ours)s)
    """,
    "policy": "select n.* from pg_policies n where n.schemaname = any (%(ours)s)",
    "default privilege": """
        select n.nspname, d.defaclrole::regrole::text as of_role, d.defaclobjtype, d.defaclacl::text[]
          from pg_default_acl d join pg_namespace n on n.oid = d.defaclnamespace where n.nspname = any (%(ours)s)
    """,
    "statistics": """
        select pg_get_statisticsobjdef(s.oid) as definition, s.stxstattarget
          from pg_statistic_ext s join pg_namespace n on n.oid = s.stxnamespace where n.nspname = any (%(ours)s)
    """,
    "comment": """
        select (pg_identify_object(d.classoid, d.objoid, d.objsubid)).identity, d.description from pg_description d
         where (pg_identify_object(d.classoid, d.objoid, d.objsubid)).schema = any (%(ours)s)
            or (d.classoid = 'pg_namespace'::regclass and d.objoid::regnamespace::text = any (%(ours)s))
            or (d.classoid = 'pg_trigger'::regclass)
    """,
    "extension": "select e.extname, e.extversion from pg_extension e",
    "event trigger": "select e.evtname, e.evtevent, e.evtenabled, e.evtfoid::regprocedure::text from pg_event_trigger e",
    "publication": "select p.pubname, p.puballtables from pg_publication p",
}

TABLES: LiteralString = """
select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname in ('dbos', 'engine', 'app') and c.relkind in ('r', 'p') order by 1, 2
"""


def catalog(conn: psycopg.Connection[Any]) -> Catalog:
    found = {
        kind: sorted(row[0] for row in conn.execute(sql.SQL(ROWS).format(sql.SQL(q)), {"ours": OURS}))
        for kind, q in QUERIES.items()
    }
    assert found["relation"], "no schema of ours is there"
    return found


def contents(conn: psycopg.Connection[Any], *, without: Sequence[str] = ()) -> Catalog:
    """The rows of every table but the version's own, as JSON. without: columns that are left out."""
    found: Catalog = {}
    for table in conn.execute(TABLES).fetchall():
        if table != ("engine", "schema_version"):
            query = sql.SQL("select (to_jsonb(t) - %s::text[])::text from {} t").format(sql.Identifier(*table))
            found[".".join(table)] = sorted(row[0] for row in conn.execute(query, (list(without),)))
    return found


def difference(expected: Catalog, found: Catalog) -> list[str]:
    """What only one of them has, a line each; empty when they are equal."""
    lines: list[str] = []
    for kind in sorted({*expected, *found}):
        wanted, there = expected.get(kind, []), found.get(kind, [])
        lines += [f"- {kind} {row}" for row in wanted if row not in there] + [
            f"+ {kind} {row}" for row in there if row not in wanted
        ]
        if not lines and wanted != there:
            lines.append(f"{kind}: rows are there more or less often")
    return lines
