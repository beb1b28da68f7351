/* A PKCS #11 module that passes everything on to another one. While the file "hangs" is there, signatures hang; while "slow" is, each takes half a
   second and adds a byte to the file "signed". Each login adds a byte to the file "logins". While the file "mute" is there, it does not say whether a key is sensitive or extractable. */
#include <dlfcn.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* CK_FUNCTION_LIST of version 2: 68 functions, in the standard's order. */
struct list {
  unsigned char version[2];
  void *functions[68];
};
enum { LOGIN = 18, ATTRIBUTES = 24, SIGN = 43 };
struct attribute {
  unsigned long type;
  void *value;
  unsigned long length;
};
typedef unsigned long rv;
static struct list own, *other;

static int noted(const char *path) {
  int file = open(path, O_CREAT | O_APPEND | O_WRONLY, 0600);
  if (file < 0) return 0;
  int written = write(file, "x", 1) == 1;
  close(file);
  return written;
}

static rv login(unsigned long session, unsigned long user, void *pin, unsigned long length) {
  if (!noted(FOLDER "/logins")) return 5;
  return ((rv(*)(unsigned long, unsigned long, void *, unsigned long))other->functions[LOGIN])(session, user, pin, length);
}

static rv attributes(unsigned long session, unsigned long object, struct attribute *wanted, unsigned long count) {
  rv (*ask)(unsigned long, unsigned long, struct attribute *, unsigned long) =
      (rv(*)(unsigned long, unsigned long, struct attribute *, unsigned long))other->functions[ATTRIBUTES];
  if (access(FOLDER "/mute", F_OK) != 0) return ask(session, object, wanted, count);
  rv said = 0;
  for (unsigned long i = 0; i < count; i++) {
    rv one = 0x12;
    if (wanted[i].type == 0x103 || wanted[i].type == 0x162)
      wanted[i].length = (unsigned long)-1;
    else
      one = ask(session, object, wanted + i, 1);
    if (one) said = one;
  }
  return said;
}

static rv sign(unsigned long session, void *data, unsigned long length, void *signature, void *signed_length) {
  while (access(FOLDER "/hangs", F_OK) == 0) usleep(10000);
  /* Without room for it, only its length is asked for. */
  if (signature && access(FOLDER "/slow", F_OK) == 0) {
    usleep(500000);
    if (!noted(FOLDER "/signed")) return 5;
  }
  return ((rv(*)(unsigned long, void *, unsigned long, void *, void *))other->functions[SIGN])(session, data, length, signature,
                                                                                                 signed_length);
}

rv C_GetFunctionList(struct list **list) {
  void *module = dlopen(MODULE, RTLD_NOW | RTLD_LOCAL);
  if (!module) return 5;
  rv (*get)(struct list **) = (rv(*)(struct list **))dlsym(module, "C_GetFunctionList");
  if (!get || get(&other) != 0) return 5;
  own = *other;
  own.functions[LOGIN] = (void *)login;
  own.functions[ATTRIBUTES] = (void *)attributes;
  own.functions[SIGN] = (void *)sign;
  *list = &own;
  return 0;
}
