// commit_breakers.cpp - closing the breakers of keys when the transaction commits that gave them another secret.
#include "pg/server/postgres_api.h"

#include "pg/pool/commit_breakers.h"

#include "pg/pool/clear_blocks.h"

struct NewSecret {
  keypool::KeyId key;
  SubTransactionId subtransaction;
  NewSecret *next;
};

static NewSecret *new_secrets;  // of this transaction, in its memory

void close_breaker_at_commit(const keypool::KeyId &key) {
  auto *added = static_cast<NewSecret *>(MemoryContextAlloc(TopTransactionContext, sizeof(NewSecret)));
  *added = {key, GetCurrentSubTransactionId(), new_secrets};
  new_secrets = added;
}

static void close_breakers(void) {
  // Closing one may fail, and with it the commit: none is left for the next transaction.
  NewSecret *secret = new_secrets;
  new_secrets = nullptr;
  for (; secret != nullptr; secret = secret->next) close_breaker_of_key(secret->key);
}

static void on_transaction_end(XactEvent event, void *) {
  if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE) close_breakers();
  if (event == XACT_EVENT_ABORT) new_secrets = nullptr;
}

static void on_subtransaction_end(SubXactEvent event, SubTransactionId ended, SubTransactionId parent, void *) {
  if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB) return;
  for (NewSecret **at = &new_secrets; *at != nullptr && (*at)->subtransaction >= ended;) {
    if (event == SUBXACT_EVENT_ABORT_SUB) {
      *at = (*at)->next;
    } else {
      (*at)->subtransaction = parent;
      at = &(*at)->next;
    }
  }
}

void commit_breakers_init(void) {
  RegisterXactCallback(on_transaction_end, nullptr);
  RegisterSubXactCallback(on_subtransaction_end, nullptr);
}
