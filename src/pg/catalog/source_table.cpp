// source_table.cpp - the rows of somebody else's table, read without running any code of theirs.
#include "pg/catalog/source_table.h"

extern "C" {
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "utils/acl.h"
#include "utils/rls.h"
#include "utils/tuplestore.h"
}

static constexpr int kMaxColumns = 16;

// Raises unless all columns hold values of PostgreSQL's own types, which are stored.
static void check_columns(Relation table) {
  for (int i = 0; i < RelationGetNumberOfAttributes(table); ++i) {
    Form_pg_attribute column = TupleDescAttr(RelationGetDescr(table), i);
    if (column->attisdropped) continue;
    if (column->atttypid >= FirstNormalObjectId)
      ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE),
              errmsg("column \"%s\" of \"%s\" is not of a type of PostgreSQL's own", NameStr(column->attname),
                     RelationGetRelationName(table)));
    if (column->attgenerated != '\0' && column->attgenerated != ATTRIBUTE_GENERATED_STORED)
      ereport(
          ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE),
          errmsg("column \"%s\" of \"%s\" is not stored", NameStr(column->attname), RelationGetRelationName(table)));
  }
}

static void check_table(Relation table) {
  char kind = table->rd_rel->relkind;
  if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
    ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a table", RelationGetRelationName(table)));
  check_columns(table);
}

static void check_rights(Relation table) {
  Oid id = RelationGetRelid(table);
  if (pg_class_aclcheck(id, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
    aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, RelationGetRelationName(table));
  if (check_enable_rls(id, InvalidOid, true) == RLS_ENABLED)
    ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
            errmsg("the rows of \"%s\" are restricted by row-level security", RelationGetRelationName(table)));
}

static AttrNumber column_number(Relation table, const char *column) {
  AttrNumber number = get_attnum(RelationGetRelid(table), column);
  if (number == InvalidAttrNumber)
    ereport(ERROR, errcode(ERRCODE_UNDEFINED_COLUMN),
            errmsg("column \"%s\" of relation \"%s\" does not exist", column, RelationGetRelationName(table)));
  return number;
}

// What a row of these columns looks like.
static TupleDesc describe_row(Relation table, const char *const *columns, int count) {
  TupleDesc row = CreateTemplateTupleDesc(count);
  for (int i = 0; i < count; ++i) {
    AttrNumber number = column_number(table, columns[i]);
    Form_pg_attribute column = TupleDescAttr(RelationGetDescr(table), number - 1);
    TupleDescInitEntry(row, static_cast<AttrNumber>(i + 1), columns[i], column->atttypid, column->atttypmod, 0);
  }
  return row;
}

// Adds the rows of one table, whose columns may lie elsewhere than in its parent.
static void copy_rows(Relation table, TupleDesc row, Snapshot snapshot, Tuplestorestate *rows) {
  AttrNumber numbers[kMaxColumns];
  for (int i = 0; i < row->natts; ++i) numbers[i] = column_number(table, NameStr(TupleDescAttr(row, i)->attname));
  TupleTableSlot *slot = table_slot_create(table, nullptr);
  TableScanDesc scan = table_beginscan(table, snapshot, 0, nullptr);
  while (table_scan_getnextslot(scan, ForwardScanDirection, slot)) {
    CHECK_FOR_INTERRUPTS();
    Datum values[kMaxColumns];
    bool nulls[kMaxColumns];
    for (int i = 0; i < row->natts; ++i) values[i] = slot_getattr(slot, numbers[i], &nulls[i]);
    tuplestore_putvalues(rows, row, values, nulls);
  }
  table_endscan(scan);
  ExecDropSingleTupleTableSlot(slot);
}

static Tuplestorestate *copy_all_rows(Oid table, TupleDesc row) {
  Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);
  Snapshot snapshot = RegisterSnapshot(GetTransactionSnapshot());
  List *parts = find_all_inheritors(table, AccessShareLock, nullptr);
  ListCell *cell;
  foreach (cell, parts) {
    Relation part = table_open(lfirst_oid(cell), NoLock);
    check_table(part);
    if (part->rd_rel->relkind == RELKIND_RELATION) copy_rows(part, row, snapshot, rows);
    table_close(part, NoLock);
  }
  UnregisterSnapshot(snapshot);
  return rows;
}

void source_table_read(Oid table, const char *const *columns, const char *name) {
  int count = 0;
  while (columns[count] != nullptr) ++count;
  Assert(count <= kMaxColumns);
  Relation source = table_open(table, AccessShareLock);
  check_table(source);
  check_rights(source);
  TupleDesc row = describe_row(source, columns, count);
  Tuplestorestate *rows = copy_all_rows(table, row);
  table_close(source, NoLock);

  auto *relation = static_cast<EphemeralNamedRelation>(palloc0(sizeof(EphemeralNamedRelationData)));
  relation->md.name = pstrdup(name);
  relation->md.tupdesc = row;
  relation->md.enrtype = ENR_NAMED_TUPLESTORE;
  relation->md.enrtuples = static_cast<double>(tuplestore_tuple_count(rows));
  relation->reldata = rows;
  if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER) elog(ERROR, "keypool: cannot register %s", name);
}
