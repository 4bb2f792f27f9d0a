ALTER TABLE public.conversation_members DISABLE TRIGGER USER;
